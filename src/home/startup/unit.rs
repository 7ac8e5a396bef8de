//! The unit of a user's apps, as text: systemd.unit(5), systemd.service(5).
//!
//! Pure. No PATH and no settings are in it: those are in the folder of each app, and so a change of them needs no other unit.

use std::fmt::Write as _;
use std::path::Path;

use super::StartupError;
use crate::control::home::HOME_VARIABLE;

/// How a unit begins that is clusterd's to write and to remove.
const MARK: &str = "# Written by `clusterd startup`, removed by `clusterd unstartup`;";

/// Whose apps the unit runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// The system's, as this user.
    System(String),
    /// The user's own.
    User,
}

/// What differs from unit to unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit<'a> {
    /// Who runs it.
    pub manager: &'a Manager,
    /// The clusterd.
    pub program: &'a Path,
    /// The folder of the apps.
    pub home: &'a Path,
}

impl Manager {
    /// The name of the unit of this app, or of the template.
    pub(crate) fn unit(&self, app: &str) -> String {
        format!("{}{app}.service", self.prefix())
    }

    /// What the names of its units begin with.
    pub(crate) fn prefix(&self) -> String {
        match self {
            Manager::System(user) => format!("clusterd-{}@", escaped(user)),
            Manager::User => "clusterd@".to_owned(),
        }
    }

    /// The target that wants its units.
    pub(crate) fn target(&self) -> &'static str {
        match self {
            Manager::System(_) => "multi-user.target",
            Manager::User => "default.target",
        }
    }

    fn is_root(&self) -> bool {
        matches!(self, Manager::System(user) if user == "root" || user == "0")
    }
}

impl Unit<'_> {
    /// The file.
    ///
    /// # Errors
    /// A path is no text.
    pub(crate) fn text(self) -> Result<String, StartupError> {
        let Self { manager, program, home } = self;
        let (home, program) = (text_of(home)?, text_of(program)?);
        let template = manager.unit("");
        let ctl = if *manager == Manager::User { "systemctl --user" } else { "systemctl" };
        let mut text = format!(
            "{MARK} without this line it is yours.\n\
             # To change something, leave it as it is, and use: {ctl} edit {template}\n\
             # Each instance is an app of {}, where its command, settings and variables are.\n\n\
             [Unit]\nDescription=clusterd app %i{}\n",
            word(home),
            match manager {
                Manager::System(user) => format!(" of {}", literal(user)),
                Manager::User => String::new(),
            }
        );
        if matches!(manager, Manager::System(_)) {
            text += "Wants=network-online.target\nAfter=network-online.target\n";
        }
        let _ = write!(
            text,
            "RequiresMountsFor={}\n\
             # One that fails five times a minute stays down.\n\
             StartLimitIntervalSec=60\nStartLimitBurst=5\n\n\
             [Service]\n\
             # It is started once every port has a worker.\n\
             Type=notify\n\
             # clusterd notifies the watchdog while its data path and its supervisor answer.\n\
             WatchdogSec=30\n",
            word(home)
        );
        if let Manager::System(user) = manager {
            let _ = writeln!(text, "User={}", literal(user));
        }
        let command = word(program).replace('$', "$$");
        let _ = write!(
            text,
            "{}\nExecStart={command} primary %i\nExecReload={command} reload %i\n\
             # TERM goes to clusterd only, which stops its workers. It says how long that may take.\n\
             KillMode=mixed\n\
             Restart=on-failure\nRestartSec=2\n\
             # Usage, configuration, command not executable, command not found: a restart would fail the same way.\n\
             RestartPreventExitStatus=2 78 126 127\n\
             # A worker that the kernel kills for its memory is started again by clusterd.\n\
             OOMPolicy=continue\n",
            home_line(home)
        );
        if matches!(manager, Manager::System(_)) {
            text += "# Each connection that waits is a descriptor.\nLimitNOFILE=524288\n";
        }
        if matches!(manager, Manager::System(_)) && !manager.is_root() {
            text += "# What takes nothing from an app that ran before. For more, where no worker uses sudo: NoNewPrivileges=yes\n\
                     ProtectSystem=full\nProtectControlGroups=yes\n";
        }
        let _ = write!(text, "\n[Install]\nWantedBy={}\n", manager.target());
        Ok(text)
    }
}

/// Whether `clusterd startup` has written this unit, and may replace or remove it.
pub(crate) fn is_ours(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Whether this unit runs the apps of this home folder.
pub(crate) fn is_for(text: &str, home: &Path) -> bool {
    home.to_str().is_some_and(|home| text.lines().any(|line| line == home_line(home)))
}

fn home_line(home: &str) -> String {
    format!("Environment={}", word(&format!("{HOME_VARIABLE}={home}")))
}

fn text_of(path: &Path) -> Result<&str, StartupError> {
    path.to_str().ok_or_else(|| StartupError::NoText(path.to_owned()))
}

/// Text in which nothing stands for something else ("Specifiers", systemd.unit(5)).
fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// The same as one word among several ("Quoting", systemd.syntax(7)).
fn word(text: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+@:=,%".contains(character);
    let text = literal(text);
    if text.chars().all(is_plain) {
        return text;
    }
    let quoted = text.chars().map(|character| match character {
        '"' | '\\' => format!("\\{character}"),
        '\n' => "\\n".to_owned(),
        control if control.is_ascii_control() => format!("\\x{:02x}", u32::from(control)),
        other => other.to_string(),
    });
    format!("\"{}\"", quoted.collect::<String>())
}

/// As a part of a unit's name ("String Escaping for Inclusion in Unit Names", systemd.unit(5)).
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.-".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(manager: &Manager, program: &str, home: &str) -> String {
        Unit { manager, program: Path::new(program), home: Path::new(home) }.text().unwrap()
    }

    #[test]
    fn the_unit_of_the_system() {
        let ann = Manager::System("ann".to_owned());
        assert_eq!(ann.unit("web-1.x"), "clusterd-ann@web-1.x.service");
        insta::assert_snapshot!(text(&ann, "/usr/local/bin/clusterd", "/home/ann/.clusterd"), @"
        # Written by `clusterd startup`, removed by `clusterd unstartup`; without this line it is yours.
        # To change something, leave it as it is, and use: systemctl edit clusterd-ann@.service
        # Each instance is an app of /home/ann/.clusterd, where its command, settings and variables are.

        [Unit]
        Description=clusterd app %i of ann
        Wants=network-online.target
        After=network-online.target
        RequiresMountsFor=/home/ann/.clusterd
        # One that fails five times a minute stays down.
        StartLimitIntervalSec=60
        StartLimitBurst=5

        [Service]
        # It is started once every port has a worker.
        Type=notify
        # clusterd notifies the watchdog while its data path and its supervisor answer.
        WatchdogSec=30
        User=ann
        Environment=CLUSTERD_HOME=/home/ann/.clusterd
        ExecStart=/usr/local/bin/clusterd primary %i
        ExecReload=/usr/local/bin/clusterd reload %i
        # TERM goes to clusterd only, which stops its workers. It says how long that may take.
        KillMode=mixed
        Restart=on-failure
        RestartSec=2
        # Usage, configuration, command not executable, command not found: a restart would fail the same way.
        RestartPreventExitStatus=2 78 126 127
        # A worker that the kernel kills for its memory is started again by clusterd.
        OOMPolicy=continue
        # Each connection that waits is a descriptor.
        LimitNOFILE=524288
        # What takes nothing from an app that ran before. For more, where no worker uses sudo: NoNewPrivileges=yes
        ProtectSystem=full
        ProtectControlGroups=yes

        [Install]
        WantedBy=multi-user.target
        ");
    }

    #[test]
    fn the_unit_of_a_user_has_what_a_user_may_say() {
        let unit = text(&Manager::User, "/usr/bin/clusterd", "/home/ann/.clusterd");
        for absent in ["User=", "network-online", "Protect", "LimitNOFILE", "multi-user"] {
            assert!(!unit.contains(absent), "{absent}: {unit}");
        }
        assert!(unit.ends_with("\n[Install]\nWantedBy=default.target\n"), "{unit}");
        assert_eq!(Manager::User.unit(""), "clusterd@.service");
    }

    #[test]
    fn apps_of_root_are_not_hardened() {
        let unit = text(&Manager::System("root".to_owned()), "/usr/bin/clusterd", "/root/.clusterd");
        assert!(!unit.contains("Protect") && unit.contains("User=root\n"), "{unit}");
    }

    #[test]
    fn odd_paths_and_users_are_written_as_they_are() {
        let odd = Manager::System("EXAMPLE\\ann@x".to_owned());
        assert_eq!(odd.unit("web"), "clusterd-EXAMPLE\\x5cann\\x40x@web.service");
        let (program, home) = ("/opt/50% $new/clusterd", "/srv/a \"b\"\n\\c");
        let unit = text(&odd, program, home);
        for line in [
            "ExecStart=\"/opt/50%% $$new/clusterd\" primary %i",
            r#"Environment="CLUSTERD_HOME=/srv/a \"b\"\n\\c""#,
            r#"RequiresMountsFor="/srv/a \"b\"\n\\c""#,
        ] {
            assert!(unit.lines().any(|is| is == line), "{line}: {unit}");
        }
        assert!(is_for(&unit, Path::new(home)) && !is_for(&unit, Path::new("/srv")));
    }

    #[test]
    fn a_unit_is_ours_by_its_first_line() {
        let unit = text(&Manager::User, "/usr/bin/clusterd", "/home/ann/.clusterd");
        assert!(is_ours(&unit));
        assert!(!is_ours(unit.split_once('\n').unwrap().1) && !is_ours(""));
    }
}

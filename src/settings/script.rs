//! Which program runs a script, by the script's name.
//!
//! It only advises: clusterd runs what it is told, and nothing else.

use std::ffi::OsStr;
use std::path::Path;

use super::parse;

/// The words that run files with these extensions, as far as one way is the usual one.
const INTERPRETERS: [(&[&str], &str); 13] = [
    (&["js", "mjs", "cjs", "ts", "mts", "cts"], "node"),
    (&["py"], "python3"),
    (&["rb"], "ruby"),
    (&["php"], "php"),
    (&["sh"], "sh"),
    (&["bash"], "bash"),
    (&["pl"], "perl"),
    (&["psgi"], "plackup"),
    (&["ru"], "rackup"),
    (&["jar", "war"], "java -jar"),
    (&["dll"], "dotnet"),
    (&["lua"], "lua"),
    (&["exs"], "elixir"),
];

/// What an app is called that runs this script.
pub(crate) fn name_of(script: &OsStr) -> String {
    parse::name_of(Path::new(script).file_stem().unwrap_or(script))
}

/// The command that runs this script; `None` if it looks like none.
pub(crate) fn command_for(program: &OsStr) -> Option<String> {
    let extension = Path::new(program).extension()?.to_str()?.to_ascii_lowercase();
    let (_, interpreter) =
        INTERPRETERS.iter().find(|(extensions, _)| extensions.contains(&extension.as_str()))?;
    Some(format!("{interpreter} {}", program.display()))
}

/// What to do about a script that is no program by itself.
pub(crate) fn advice(program: &OsStr) -> Option<String> {
    command_for(program).map(|command| format!("a script is run by its interpreter: clusterd -- {command}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_by_its_extension() {
        let cases = [
            ("app.js", Some("node app.js")),
            ("./src/app.MJS", Some("node ./src/app.MJS")),
            ("app.ts", Some("node app.ts")),
            ("app.py", Some("python3 app.py")),
            ("app.rb", Some("ruby app.rb")),
            ("index.php", Some("php index.php")),
            ("run.sh", Some("sh run.sh")),
            ("app.jar", Some("java -jar app.jar")),
            ("config.ru", Some("rackup config.ru")),
            ("server", None),
            ("server.exe", None),
            ("clusterd.toml", None),
            (".js", None),
            ("", None),
        ];
        for (program, expected) in cases {
            assert_eq!(command_for(OsStr::new(program)).as_deref(), expected, "{program}");
        }
    }
}

//! Who would end an app with the `start` that has started it: a service that systemd ends whole, or a CI job that looks for what it has left.
//!
//! Pure: it reads no file. Detached from the terminal, an app is still in the cgroup that it was started in (cgroups(7)).

/// What systemd ends without ending what they have started: `KillMode=process` is in their units.
const LEAVE_OTHERS_ALONE: [&str; 6] = ["ssh", "sshd", "dropbear", "cron", "crond", "atd"];

/// The service in whose cgroup a process is that has this `/proc/PID/cgroup`: when it ends, so does the process.
pub(crate) fn service(cgroup: &str) -> Option<&str> {
    // Of version 2 `0::/PATH`, and of version 1 the hierarchy in which systemd keeps its units.
    let in_systemd = |line: &&str| line.contains(":name=systemd:");
    let in_only_one = |line: &&str| line.starts_with("0::");
    let line = cgroup.lines().find(in_systemd).or_else(|| cgroup.lines().find(in_only_one))?;
    let unit = line.rsplit('/').next()?;
    let name = unit.strip_suffix(".service")?;
    let template = name.split('@').next().unwrap_or(name);
    (template != "user" && !LEAVE_OTHERS_ALONE.contains(&template)).then_some(unit)
}

/// The CI job that has these variables and ends, when it ends itself, every process that has them, too.
pub(crate) fn job(variable: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let is_set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if is_set("JENKINS_NODE_COOKIE").is_some_and(|cookie| cookie != "dontKillMe") {
        return Some("Jenkins");
    }
    is_set("RUNNER_TRACKING_ID").filter(|id| id.starts_with("github_")).map(|_| "GitHub Actions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_the_service_that_it_is_in() {
        let table = [
            ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-5f.scope\n", None),
            ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", None),
            ("0::/user.slice/user-1000.slice/user@1000.service\n", None),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/deploy.service\n",
                Some("deploy.service"),
            ),
            ("0::/system.slice/gitlab-runner.service\n", Some("gitlab-runner.service")),
            ("0::/system.slice/system-getty.slice/getty@tty1.service\n", Some("getty@tty1.service")),
            ("0::/system.slice/ssh.service\n", None),
            ("0::/system.slice/system-sshd.slice/sshd@0-10.0.0.1:22-10.0.0.2:4711.service\n", None),
            ("0::/system.slice/cron.service\n", None),
            // Containers, with a cgroup namespace of their own and without.
            ("0::/\n", None),
            ("0::/../../pod8a/5c\n", None),
            ("0::/system.slice/docker-5c0e.scope\n", None),
            (
                "12:pids:/docker/5c0e\n1:name=systemd:/docker/5c0e\n0::/system.slice/containerd.service\n",
                None,
            ),
            // Version 1 with that of systemd beside it.
            (
                "4:memory:/system.slice/jenkins.service\n1:name=systemd:/system.slice/jenkins.service\n0::/\n",
                Some("jenkins.service"),
            ),
            ("9:name=systemd:/\n8:pids:/\n0::/\n", None),
            ("", None),
        ];
        for (cgroup, expected) in table {
            assert_eq!(service(cgroup), expected, "{cgroup}");
        }
    }

    #[test]
    fn a_job_that_looks_for_what_it_has_left_is_known_by_its_variables() {
        let table = [
            ("CI", "true", None),
            ("JENKINS_NODE_COOKIE", "5c0e", Some("Jenkins")),
            ("JENKINS_NODE_COOKIE", "dontKillMe", None),
            ("RUNNER_TRACKING_ID", "github_5c0e", Some("GitHub Actions")),
            ("RUNNER_TRACKING_ID", "0", None),
        ];
        for (name, value, expected) in table {
            let found = job(|asked| (asked == name).then(|| value.to_owned()));
            assert_eq!(found, expected, "{name}={value}");
        }
    }
}

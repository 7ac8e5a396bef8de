//! Which programs may see the channel that Node's cluster module speaks on: Node, and what speaks as Node does.
//!
//! Pure: how the program is called and which arguments it has is found out in `node`.

/// What Deno has to be permitted to read, since its cluster module asks for it as soon as there is a channel.
const ASKED_BY_DENO: &[u8] = b"NODE_UNIQUE_ID";

/// Options of Node that take the next argument as their value.
const WITH_VALUE: [&[u8]; 8] = [
    b"-r",
    b"--require",
    b"--import",
    b"--loader",
    b"--experimental-loader",
    b"-C",
    b"--conditions",
    b"--env-file",
];

/// Whether the program in this file, started with these arguments, can make use of the channel. Of a program that is
/// not known it is assumed: what knows nothing of the channel ignores it.
pub(crate) fn speaks<'a>(file: &[u8], arguments: impl Iterator<Item = &'a [u8]>) -> bool {
    match name(file) {
        b"bun" | b"bunx" => false,
        // Its other builds: bun-profile, bun-debug.
        name if name.starts_with(b"bun-") => false,
        b"deno" => reads_environment(arguments),
        name if name.starts_with(b"node") => !script(arguments).is_some_and(is_cluster_primary),
        _ => true,
    }
}

/// Whether this is the file of Node itself.
pub(crate) fn is_node(file: &[u8]) -> bool {
    name(file).starts_with(b"node")
}

/// The last part of a path, without the ending that Bun's package has on every system.
fn name(file: &[u8]) -> &[u8] {
    let name = file.rsplit(|&byte| byte == b'/').next().unwrap_or(file);
    name.strip_suffix(b".exe").unwrap_or(name)
}

/// Whether Deno may read the environment; without that it ends at once where there is a channel.
fn reads_environment<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut permitted = false;
    for argument in arguments.take_while(|argument| !is_deno_script(argument)) {
        permitted |= match argument {
            b"--allow-all" | b"--allow-env" => true,
            _ if argument.starts_with(b"--deny-env") => return false,
            _ => match argument.strip_prefix(b"--allow-env=") {
                Some(names) => names_the_asked(names),
                None => is_short_permission(argument),
            },
        };
    }
    permitted
}

/// What follows it is the script's own. Deno also takes options after the name of a subcommand, and values of options
/// are arguments of their own, so that only the look of it tells the script.
fn is_deno_script(argument: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 8] = [b".ts", b".js", b".mts", b".mjs", b".cts", b".cjs", b".tsx", b".jsx"];
    const SCHEMES: [&[u8]; 5] = [b"npm:", b"jsr:", b"http:", b"https:", b"file:"];
    let is_option = argument.starts_with(b"-") && argument != b"-" && argument != b"--";
    let looks_like_one = ENDINGS.iter().any(|ending| argument.ends_with(ending))
        || SCHEMES.iter().any(|scheme| argument.starts_with(scheme));
    !is_option && (looks_like_one || argument == b"--")
}

/// `-A`, `-E` and `-E=NAMES`, also among other short options, as in `-NE`.
fn is_short_permission(argument: &[u8]) -> bool {
    let Some(letters) = argument.strip_prefix(b"-").filter(|letters| !letters.starts_with(b"-")) else {
        return false;
    };
    let mut parts = letters.splitn(2, |&byte| byte == b'=');
    let (letters, names) = (parts.next().unwrap_or_default(), parts.next());
    match (letters.last(), names) {
        (Some(b'E'), Some(names)) => names_the_asked(names),
        (_, Some(_)) => false,
        (_, None) => letters.iter().any(|letter| matches!(letter, b'A' | b'E')),
    }
}

fn names_the_asked(names: &[u8]) -> bool {
    names.split(|&byte| byte == b',').any(|name| name == ASKED_BY_DENO)
}

/// The script that Node runs, without its options.
fn script<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    while let Some(argument) = arguments.next() {
        if !argument.starts_with(b"-") {
            return Some(argument);
        }
        if WITH_VALUE.contains(&argument) {
            arguments.next();
        }
    }
    None
}

/// PM2 is the primary of a cluster itself, and its workers are served through the shim.
fn is_cluster_primary(script: &[u8]) -> bool {
    matches!(name(script), b"pm2" | b"pm2-runtime" | b"pm2-docker" | b"pm2-dev")
}

#[cfg(test)]
mod tests {
    use super::{is_node, speaks};

    fn speaks_when_started_as(line: &str) -> bool {
        let mut words = line.split(' ').map(str::as_bytes);
        let file = words.next().expect("a program");
        speaks(file, words)
    }

    #[test]
    fn node_and_what_is_not_known_get_the_channel() {
        for line in [
            "/usr/bin/node app.js",
            "/usr/bin/nodejs app.js",
            "/usr/bin/node-22 -r dotenv/config app.js pm2",
            "/usr/bin/node --import=tsx app.ts",
            "/usr/bin/node",
            "/opt/server",
            "/usr/bin/bundle exec puma",
        ] {
            assert!(speaks_when_started_as(line), "{line}");
        }
    }

    #[test]
    fn node_is_known_by_the_name_of_its_file() {
        for (file, is_one) in [
            ("/usr/bin/node", true),
            ("/opt/node-22/bin/nodejs", true),
            ("/bin/deno", false),
            ("/bin/sh", false),
        ] {
            assert_eq!(is_node(file.as_bytes()), is_one, "{file}");
        }
    }

    #[test]
    fn bun_and_pm2_do_not_get_it() {
        for line in [
            "/usr/local/bin/bun app.js",
            "/app/node_modules/bun/bin/bun.exe app.js",
            "/usr/local/bin/bun-profile run app.js",
            "/usr/bin/node /app/node_modules/.bin/pm2-runtime app.js",
            "/usr/bin/node --trace-warnings /usr/bin/pm2-runtime start ecosystem.config.js",
            "/usr/bin/node -r dotenv/config /usr/bin/pm2 start app.js",
        ] {
            assert!(!speaks_when_started_as(line), "{line}");
        }
    }

    #[test]
    fn deno_gets_it_when_it_may_read_the_environment() {
        for (line, speaks) in [
            ("/bin/deno run -A app.ts", true),
            ("/bin/deno -A app.ts", true),
            ("/bin/deno serve --port 3000 --allow-all app.ts", true),
            ("/bin/deno run --allow-net --allow-env app.ts", true),
            ("/bin/deno run --allow-env=PORT,NODE_UNIQUE_ID app.ts", true),
            ("/bin/deno run -NE app.ts", true),
            ("/bin/deno run -NE=NODE_UNIQUE_ID app.ts", true),
            ("/bin/deno run --allow-net --allow-env=PORT app.ts", false),
            ("/bin/deno run -E=PORT app.ts", false),
            ("/bin/deno run -N app.ts", false),
            ("/bin/deno run -A --deny-env=SECRET app.ts", false),
            ("/bin/deno run app.ts -A", false),
            ("/bin/deno run --allow-net npm:server -A", false),
            ("/bin/deno serve --port 3000 app.ts", false),
        ] {
            assert_eq!(speaks_when_started_as(line), speaks, "{line}");
        }
    }
}

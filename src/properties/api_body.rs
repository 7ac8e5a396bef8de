//! The body of a command: what is accepted is written again as the same command, and means the same however it is spelled.
//!
//! Which commands there are, the unit tests of `control::api` list.

use serde_json::Value;

use crate::control::api::{Code, Verb, body_of, command_of};

/// Reads `data` as a digit, which says the verb, and a body.
pub fn check(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let verb = Verb::ALL[usize::from(first.wrapping_sub(b'0')) % Verb::ALL.len()];
    let command = match command_of(verb, body) {
        Ok(command) => command,
        Err(problem) => {
            assert_eq!(problem.code, Code::BadRequest);
            assert!(problem.help.is_some_and(|help| help.contains("the body is")));
            assert!(problem.message.starts_with(verb.name()));
            assert!(problem.message.len() <= 500 + 8 * body.len(), "{}", problem.message);
            return;
        }
    };
    assert_eq!(Verb::of(&command), verb);
    assert_eq!(command_of(verb, &body_of(&command)).as_ref(), Ok(&command));
    if !body.trim_ascii().is_empty() {
        let value: Value = serde_json::from_slice(body).expect("what is accepted is JSON");
        let spelled = serde_json::to_vec_pretty(&value).expect("JSON");
        assert_eq!(command_of(verb, &spelled), Ok(command));
    }
}

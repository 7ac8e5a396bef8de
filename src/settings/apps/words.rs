//! A line of arguments as its words.
//!
//! Quotes only, as PM2 has them: a backslash stands for itself, so that patterns and paths stay what they are. It is no shell.

/// The words of a line: between spaces, and with what stands in `"` or `'` kept together, without the quotes.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => word.get_or_insert_default().push(character),
            None if matches!(character, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            None if character.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let cases: [(&str, &[&str]); 8] = [
            ("", &[]),
            ("  a  b\t", &["a", "b"]),
            ("--port 80 -x", &["--port", "80", "-x"]),
            (r#"run "a b" 'c d'"#, &["run", "a b", "c d"]),
            (r#"--name="a b" c"#, &["--name=a b", "c"]),
            (r"--match \d+", &["--match", r"\d+"]),
            (r#"a "" b"#, &["a", "", "b"]),
            (r#"it's"#, &["its"]),
        ];
        for (line, expected) in cases {
            assert_eq!(split(line), expected, "{line}");
        }
    }
}

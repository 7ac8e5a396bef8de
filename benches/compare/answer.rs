//! An HTTP answer as it comes in parts; of its heads it reads only what tells where it ends.

/// What is known so far.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    bytes: Vec<u8>,
}

/// Whether an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    NotYet,
    /// Not with 200, or without what an application here says.
    Badly,
    By {
        /// The process that the answer names.
        worker: i32,
        /// The server closes the connection.
        closes: bool,
    },
}

impl Answer {
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    pub fn add(&mut self, part: &[u8]) -> Answered {
        self.bytes.extend_from_slice(part);
        let Some(end) = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Answered::NotYet;
        };
        let Ok(head) = std::str::from_utf8(&self.bytes[..end]) else { return Answered::Badly };
        if head.split(' ').nth(1) != Some("200") {
            return Answered::Badly;
        }
        let length = value(head, "content-length").and_then(|value| value.parse::<usize>().ok());
        let Some(length) = length else { return Answered::Badly };
        let Some(body) = self.bytes.get(end + 4..end + 4 + length) else { return Answered::NotYet };
        let worker = std::str::from_utf8(body).ok().and_then(|body| body.trim().parse().ok());
        let closes = value(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        worker.map_or(Answered::Badly, |worker| Answered::By { worker, closes })
    }
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

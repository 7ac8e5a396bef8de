//! Headers of the requests that clusterd itself sends to workers.
//!
//! What a request needs for its own connection and body is not for the user to set, since clusterd sets it.

use hyper::header::{self, HeaderName, HeaderValue};

use crate::settings::error::Reason;
use crate::settings::kind::Parsed;

/// A header, as curl's `-H` takes it.
pub(crate) const HEADER: Parsed<ProbeHeader> = Parsed {
    placeholder: "NAME: VALUE",
    accepts: "NAME: VALUE, such as \"Host: example.com\"",
    read: read_header,
    show: ProbeHeader::to_string,
};

/// A header of a request to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value, which is text.
    pub value: HeaderValue,
}

/// As [`HEADER`] reads it.
impl std::fmt::Display for ProbeHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, String::from_utf8_lossy(self.value.as_bytes()))
    }
}

/// What says how a message and its connection are framed: another value would make the request one that no server can
/// read.
const OF_CLUSTERD: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn read_header(text: &str) -> Result<ProbeHeader, Reason> {
    let (name, value) = text.split_once(':').ok_or_else(|| Reason::new("not a header: there is no colon"))?;
    let name: HeaderName =
        name.parse().map_err(|_| Reason::new(format!("not a header: {name:?} is not a name")))?;
    if OF_CLUSTERD.contains(&name) {
        let hint = "leave this out: each request is a GET without a body, on a connection of its own";
        return Err(Reason::new(format!("clusterd itself sets {name}")).hint(hint));
    }
    let value = value.trim_matches([' ', '\t']);
    // Every server reads these the same. Others depend on the encoding that it assumes.
    if !value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Err(Reason::new(format!("the value of {name} is not printable ASCII")));
    }
    if name == header::HOST && !is_host(value) {
        return Err(Reason::new("not a host").hint("use Host: NAME, or Host: NAME:PORT"));
    }
    let value = value.parse().map_err(|_| Reason::new(format!("not a value for {name}")))?;
    Ok(ProbeHeader { name, value })
}

/// Whether it is a name or an address, with a port or without: a URL is a frequent mistake, and every server refuses it.
fn is_host(text: &str) -> bool {
    text.parse::<hyper::http::uri::Authority>().is_ok_and(|host| !host.as_str().contains('@'))
}

#[cfg(test)]
mod tests {
    use super::super::outcome;
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let cases = [
            ("Host: example.com", "host: example.com"),
            ("host:example.com:8080", "host: example.com:8080"),
            ("Host: [::1]:80", "host: [::1]:80"),
            ("X-Forwarded-Proto:  https ", "x-forwarded-proto: https"),
            ("X-Empty:", "x-empty: "),
            ("Authorization: Basic YTpi", "authorization: Basic YTpi"),
            ("Cookie: a=b:c; d=\"e\"", "cookie: a=b:c; d=\"e\""),
            ("Host", "not a header: there is no colon"),
            ("", "not a header: there is no colon"),
            (": x", "not a header: \"\" is not a name"),
            ("Ho st: x", "not a header: \"Ho st\" is not a name"),
            ("Host : x", "not a header: \"Host \" is not a name"),
            ("Hôst: x", "not a header: \"Hôst\" is not a name"),
            ("X-A: a\r\nX-B: b", "the value of x-a is not printable ASCII"),
            ("X-A: \u{7f}", "the value of x-a is not printable ASCII"),
            ("X-A: ä", "the value of x-a is not printable ASCII"),
            ("Host:", "not a host"),
            ("Host: http://example.com/", "not a host"),
            ("Host: example.com/path", "not a host"),
            ("Host: a b", "not a host"),
            ("Host: user@example.com", "not a host"),
            ("Content-Length: 0", "clusterd itself sets content-length"),
            ("Transfer-Encoding: chunked", "clusterd itself sets transfer-encoding"),
            ("CONNECTION: keep-alive", "clusterd itself sets connection"),
            ("Expect: 100-continue", "clusterd itself sets expect"),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&HEADER, text), expected, "{text:?}");
        }
    }
}

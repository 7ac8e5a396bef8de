//! From which sites requests may come: those of the page itself, and no other.
//!
//! Pure. A browser says where a request comes from (Fetch Metadata, `Sec-Fetch-Site`; and `Origin`, RFC 6454), and a site
//! cannot make it say something else.

use std::net::{IpAddr, SocketAddr};

use hyper::Uri;
use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::http::uri::Authority;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Foreign {
    /// Another site's page asks.
    #[error("the request comes from another site's page")]
    Site,
    /// Another name was made to mean this machine.
    #[error("the request is for another host")]
    Host,
}

/// Whether the page of another site has made this request. Programs, which are no browsers, say nothing of a site.
///
/// # Errors
/// It has.
pub(crate) fn check_site(headers: &HeaderMap) -> Result<(), Foreign> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some("same-origin" | "none"), _) | (None, None) => Ok(()),
        (None, Some(origin)) if is_of_host(origin, text(HOST.as_str()).unwrap_or_default()) => Ok(()),
        _ => Err(Foreign::Site),
    }
}

fn is_of_host(origin: &str, host: &str) -> bool {
    let origin = origin.parse::<Uri>().ok().and_then(|origin| origin.authority().cloned());
    origin.is_some_and(|origin| !host.is_empty() && origin.as_str().eq_ignore_ascii_case(host))
}

/// Whether a request at this address, which needs no token, names it. Where it is on the loopback, another name is one that
/// somebody has made to mean this machine, so that a page of theirs may read what is answered ("DNS rebinding").
///
/// # Errors
/// It names another host.
pub(crate) fn check_host(headers: &HeaderMap, listener: SocketAddr) -> Result<(), Foreign> {
    if !listener.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    if host.is_some_and(|host| is_loopback(host.host())) { Ok(()) } else { Err(Foreign::Host) }
}

/// `localhost` and what is below it are always the loopback (RFC 6761).
fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_page_itself_and_programs_are_answered() {
        let host = ("host", "127.0.0.1:9615");
        let table = [
            (vec![host], Ok(())),
            (vec![host, ("sec-fetch-site", "same-origin")], Ok(())),
            (vec![host, ("sec-fetch-site", "none")], Ok(())),
            (vec![host, ("sec-fetch-site", "same-site")], Err(Foreign::Site)),
            (vec![host, ("sec-fetch-site", "cross-site")], Err(Foreign::Site)),
            (vec![host, ("origin", "http://127.0.0.1:9615")], Ok(())),
            (vec![host, ("origin", "http://127.0.0.1:9616")], Err(Foreign::Site)),
            (vec![host, ("origin", "https://example.org")], Err(Foreign::Site)),
            (vec![host, ("origin", "null")], Err(Foreign::Site)),
            (vec![("origin", "http://127.0.0.1:9615")], Err(Foreign::Site)),
            // A proxy may ask for another host than the browser has.
            (vec![host, ("origin", "https://ops.example.org"), ("sec-fetch-site", "same-origin")], Ok(())),
            (
                vec![host, ("origin", "http://127.0.0.1:9615"), ("sec-fetch-site", "cross-site")],
                Err(Foreign::Site),
            ),
        ];
        for (pairs, expected) in table {
            assert_eq!(check_site(&headers(&pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn on_the_loopback_no_other_name_is_answered() {
        let (loopback, public) = ("127.0.0.1:9090".parse().unwrap(), "0.0.0.0:9090".parse().unwrap());
        let table = [
            ("127.0.0.1:9090", true),
            ("127.0.0.9", true),
            ("localhost:1234", true),
            ("LOCALHOST.", true),
            ("web.localhost:9090", true),
            ("[::1]:9090", true),
            ("[::ffff:127.0.0.1]", true),
            ("example.org:9090", false),
            ("localhost.example.org", false),
            ("10.0.0.1", false),
            ("", false),
        ];
        for (host, expected) in table {
            let headers = headers(&[("host", host)]);
            assert_eq!(check_host(&headers, loopback).is_ok(), expected, "{host}");
            assert_eq!(check_host(&headers, public), Ok(()), "{host}");
        }
        assert_eq!(check_host(&HeaderMap::new(), loopback), Err(Foreign::Host));
    }
}

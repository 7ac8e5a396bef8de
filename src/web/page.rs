//! The page itself: its files, which are part of this program, and the headers that keep all else away from it.
//!
//! There is nothing secret in them: what is shown comes later, to who may see it.

use std::io;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::read::GzDecoder;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    /// By gzip.
    compressed: &'static [u8],
}

impl File {
    fn text(&self) -> io::Result<String> {
        io::read_to_string(GzDecoder::new(self.compressed))
    }

    fn answer(&self) -> Response {
        match self.text() {
            Ok(text) => ([(CONTENT_TYPE, self.content_type)], text).into_response(),
            // It is a part of this program.
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// The files of the folder `page`, each with its type.
macro_rules! files {
    ($($path:literal $content_type:literal $file:literal,)*) => {
        &[$(File {
            path: $path,
            content_type: $content_type,
            compressed: include_bytes!(concat!(env!("OUT_DIR"), "/page/", $file)),
        },)*]
    };
}

const FILES: &[File] = files! {
    "/" "text/html; charset=utf-8" "index.html",
    "/apps.js" "text/javascript; charset=utf-8" "apps.js",
    "/chosen.js" "text/javascript; charset=utf-8" "chosen.js",
    "/connections.js" "text/javascript; charset=utf-8" "connections.js",
    "/dom.js" "text/javascript; charset=utf-8" "dom.js",
    "/events.js" "text/javascript; charset=utf-8" "events.js",
    "/figures.js" "text/javascript; charset=utf-8" "figures.js",
    "/format.js" "text/javascript; charset=utf-8" "format.js",
    "/generations.js" "text/javascript; charset=utf-8" "generations.js",
    "/histogram.js" "text/javascript; charset=utf-8" "histogram.js",
    "/icon.svg" "image/svg+xml" "icon.svg",
    "/lane.js" "text/javascript; charset=utf-8" "lane.js",
    "/live.js" "text/javascript; charset=utf-8" "live.js",
    "/log.js" "text/javascript; charset=utf-8" "log.js",
    "/orders.js" "text/javascript; charset=utf-8" "orders.js",
    "/page.css" "text/css; charset=utf-8" "page.css",
    "/page.js" "text/javascript; charset=utf-8" "page.js",
    "/paint.js" "text/javascript; charset=utf-8" "paint.js",
    "/place.js" "text/javascript; charset=utf-8" "place.js",
    "/ring.js" "text/javascript; charset=utf-8" "ring.js",
    "/sentence.js" "text/javascript; charset=utf-8" "sentence.js",
    "/state.js" "text/javascript; charset=utf-8" "state.js",
    "/story.js" "text/javascript; charset=utf-8" "story.js",
    "/stream.js" "text/javascript; charset=utf-8" "stream.js",
    "/text.js" "text/javascript; charset=utf-8" "text.js",
    "/workers.js" "text/javascript; charset=utf-8" "workers.js",
};

/// What a browser may load, send and show besides: nothing that is not from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The headers of every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (CACHE_CONTROL, "no-store"),
];

/// Adds the headers that every answer has.
pub(super) fn guarded(mut answer: Response) -> Response {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// The files at their paths.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .iter()
        .fold(Router::new(), |router, file| router.route(file.path, get(async || guarded(file.answer()))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// How large all of them may be together, in bytes.
    const LARGEST: usize = 150_000;

    #[test]
    fn every_file_of_the_page_is_served_and_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/page");
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let names = names.filter(|entry| entry.file_type().unwrap().is_file());
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        // For node's test runner.
        let there: BTreeSet<_> = names.filter(|name| name != "package.json").collect();
        let name = |file: &File| match file.path {
            "/" => "index.html".to_owned(),
            path => path[1..].to_owned(),
        };
        assert_eq!(FILES.iter().map(name).collect::<BTreeSet<_>>(), there);
    }

    #[test]
    fn the_page_is_small_and_needs_nothing_from_elsewhere() {
        let size: usize = FILES.iter().map(|file| file.text().unwrap().len()).sum();
        assert!(size < LARGEST, "{size}");
        for file in FILES {
            let text = file.text().unwrap();
            let addresses = text.match_indices("://").map(|(at, _)| &text[at.saturating_sub(5)..]);
            let foreign: Vec<_> = addresses
                .map(|rest| rest.lines().next().unwrap_or_default())
                .filter(|rest| !rest.contains("www.w3.org"))
                .collect();
            assert!(foreign.is_empty(), "{}: {foreign:?}", file.path);
            for inline in ["<style", " style=", " onclick=", "innerHTML", "eval("] {
                assert!(!text.contains(inline), "{}: {inline}", file.path);
            }
        }
    }
}

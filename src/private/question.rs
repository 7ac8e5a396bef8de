//! What clusterd asks of workers by itself: GET of one path, always with the same headers.
//!
//! It knows neither the worker nor the answer.

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::{Request, Uri};

/// A request that can be sent again and again.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// What is asked for.
    pub path: Uri,
    /// With which headers, beside those that each request has.
    pub headers: HeaderMap,
}

impl Question {
    /// The request.
    pub(super) fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

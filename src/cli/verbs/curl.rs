//! `clusterd curl`: an HTTP request to one worker, and to no other.
//!
//! Its flags are those of curl, as far as they go. A worker's answer is an answer, whatever its status.

use std::process::ExitCode;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use serde_json::json;

use super::app::one_app;
use super::choose::{Many, choose};
use super::print::{self, Output, Shape};
use super::{VerbError, rest, whole};
use crate::control::api::{PORT_HEADER, WORKER_HEADER};
use crate::control::client;
use crate::control::home::Home;
use crate::ids::Slot;

/// The longest body that is printed as JSON, in bytes.
const LONGEST_BODY: usize = 64 * 1024 * 1024;

/// Send an HTTP request to one worker, over a connection of its own
#[derive(Debug, clap::Args)]
#[command(override_usage = "clusterd curl [OPTIONS] --worker <N> [APP] PATH")]
pub(super) struct Curl {
    /// Name of the app, or the pid of its clusterd (not needed if only one app is running), and the path to request
    #[arg(value_names = ["APP", "PATH"], num_args = 0..=2)]
    words: Vec<String>,

    /// The same as APP
    #[arg(long, value_name = "APP")]
    name: Option<String>,

    /// Number of the worker
    #[arg(long, short, value_name = "N", value_parser = whole::worker, allow_negative_numbers = true)]
    worker: u32,

    /// Worker port, if workers listen on several; default: the first
    #[arg(long, value_name = "PORT", value_parser = whole::port, allow_negative_numbers = true)]
    port: Option<u16>,

    /// Request method; default: GET, or POST with a body
    #[arg(long, short = 'X', value_name = "METHOD")]
    request: Option<Method>,

    /// Request header; repeatable
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,

    /// Request body, sent as a form unless a header says otherwise
    #[arg(long, short, value_name = "BODY")]
    data: Option<String>,

    /// Also print the response headers
    #[arg(long, short)]
    include: bool,

    #[command(flatten)]
    shape: Shape,
}

impl Curl {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let request = self.request()?;
        let app = self.words.split_last().and_then(|(_, app)| app.first());
        let app = one_app(app, self.name.as_ref())?;
        let found = client::find_for(&Home::of_this_process(), app.as_deref().as_slice()).await;
        for (clusterd, app) in choose(&found, &rest::ids(), app.as_deref(), Many::One)? {
            let answer = clusterd.exchange(&app.name, Slot(self.worker), request.clone()).await?;
            match self.shape.output {
                Output::Json => print_json(answer).await?,
                Output::Text => self.print(answer).await?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, VerbError> {
        let path = self.words.last().filter(|path| path.starts_with('/'));
        let path = path
            .ok_or_else(|| usage("no path given\nhint: use a path that begins with /, such as /healthz"))?;
        let method = match (&self.request, &self.data) {
            (Some(method), _) => method.clone(),
            (None, Some(_)) => Method::POST,
            (None, None) => Method::GET,
        };
        let mut request = Request::builder().method(method).uri(path);
        for header in &self.header {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| usage(&format!("{header}: not a header\nhint: use NAME: VALUE")))?;
            request = request.header(name.trim(), value.trim());
        }
        if let Some(port) = self.port {
            request = request.header(PORT_HEADER, port);
        }
        let body = Full::from(self.data.clone().unwrap_or_default());
        let mut request =
            request.body(body).map_err(|error| usage(&format!("not a valid request: {error}")))?;
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert_with(|| "localhost".parse().expect("a header"));
        if self.data.is_some() {
            let form = || "application/x-www-form-urlencoded".parse().expect("a header");
            headers.entry(CONTENT_TYPE).or_insert_with(form);
        }
        Ok(request)
    }

    async fn print(&self, answer: Response<Incoming>) -> Result<(), VerbError> {
        if self.include {
            print::bytes(&head(&answer))?;
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            print::bytes(&frame.into_data().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// As it came from the worker, but for what was about the connection.
fn head(answer: &Response<Incoming>) -> Vec<u8> {
    let mut head = format!("{:?} {}\r\n", answer.version(), answer.status()).into_bytes();
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != WORKER_HEADER) {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

async fn print_json(answer: Response<Incoming>) -> Result<(), VerbError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = answer.headers().iter().filter(|(name, _)| *name != WORKER_HEADER);
    let headers: Vec<_> = headers.map(|(name, value)| [name.to_string(), text(value.as_bytes())]).collect();
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), LONGEST_BODY).collect().await;
    let body = body.map_err(|error| VerbError::Broken(error.to_string()))?.to_bytes();
    Ok(print::json(&json!({ "status": status, "headers": headers, "body": text(&body) }))?)
}

fn usage(what: &str) -> VerbError {
    VerbError::Usage(what.to_owned())
}

fn broken(error: &hyper::Error) -> VerbError {
    VerbError::Broken(error.to_string())
}

//! The command with which clusterd runs itself as a file server, as the settings of an app have it.
//!
//! It serves nothing: that is [`crate::files`].

/// The program: whichever clusterd runs the app.
pub(crate) const PROGRAM: &str = "clusterd";
/// The hidden verb.
pub(crate) const VERB: &str = "serve-worker";
/// Unknown pages are `index.html`.
pub(crate) const SPA: &str = "--spa";
/// Only who knows the name and the password is answered.
pub(crate) const BASIC_AUTH: &str = "--basic-auth";

//! The page of `clusterd web` and of `--metrics`, in a real browser.
//!
//! What is checked, sentence by sentence, stands in the scripts of `fixtures/web`. Where they need what no clusterd does in
//! time, `feed.mjs` plays the server. With CLUSTERD_TEST_PICTURES=FOLDER, the pictures of the README are made anew.

use crate::harness::browser::{self, check};
use crate::harness::home::Home;

#[test]
fn everybody_can_use_the_page() {
    if browser::is_there() {
        check("accessible.mjs", &Home::new(), &[]);
    }
}

#[test]
fn figures_lanes_and_bands_are_of_what_was_told() {
    if browser::is_there() {
        check("figures.mjs", &Home::new(), &[]);
    }
}

#[test]
fn a_thousand_workers_do_not_slow_the_page_down() {
    if browser::is_there() {
        check("many.mjs", &Home::new(), &[]);
    }
}

#[test]
fn a_token_is_needed_and_what_strangers_write_stays_text() {
    if browser::is_there() {
        check("stranger.mjs", &Home::new(), &[]);
    }
}

#[test]
fn the_pictures_of_the_readme_can_be_made() {
    if std::env::var_os("CLUSTERD_TEST_PICTURES").is_some() && browser::is_there() {
        check("pictures.mjs", &Home::new(), &[]);
    }
}

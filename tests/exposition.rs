//! The fuzz target for workers' metrics, driven by random pages that resemble those of clients.

#[path = "../fuzz/exposition.rs"]
mod exposition;

use proptest::prelude::*;

fn of(regex: &str) -> impl Strategy<Value = String> + use<> {
    prop::string::string_regex(regex).expect("a regex")
}

/// Few names, so that they meet: in another worker, in another family, in one of clusterd's own.
const NAME: &str = "(worker_)?(process_?|clusterd_)?[ab]?(_sum|_count|_bucket|_total|_created|_info)?";
const LABEL: &str = "(,?(worker|exported_worker|le|quantile|__name__|b|é)=\"([ab1]|1\\.0|\\+Inf|NaN|1e400|\\\\[\\\\nq\"])?\")";
const VALUE: &str = "([0-9]|-1|1e3|NaN|-nan|\\+Inf|1e400|0x1|_1)";
const KIND: &str = "(counter|gauge|histogram|summary|untyped|unknown|info|stateset|gaugehistogram|x)";

fn a_line() -> impl Strategy<Value = Vec<u8>> {
    let sample =
        format!("{NAME}(\\{{{LABEL}{{0,3}}\\}})? {VALUE}( -?[0-9]{{1,3}}(\\.5)?)?( # \\{{\\}} 1)?\r?");
    prop_oneof![
        6 => of(&sample).prop_map(String::into_bytes),
        3 => of(&format!("# TYPE {NAME} {KIND} ?")).prop_map(String::into_bytes),
        2 => of(&format!("# HELP {NAME} [a\\\\\"nq ]{{0,4}}")).prop_map(String::into_bytes),
        1 => of("[ -~\0é\u{2028}\t]{0,12}").prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_page_is_one_that_prometheus_takes(
        pages in prop::collection::vec(prop::collection::vec(a_line(), 0..16), 0..4)
    ) {
        let pages: Vec<_> = pages.iter().map(|lines| lines.join(&b'\n')).collect();
        exposition::check(&pages.join(&0xff));
    }

    #[test]
    fn bytes_without_any_sense_do_no_harm(data in prop::collection::vec(any::<u8>(), 0..256)) {
        exposition::check(&data);
    }
}

//! The merged metrics of the workers, as Prometheus itself takes them.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::needs::needs;
use crate::harness::prometheus::{Found, Prometheus, promtool};
use crate::harness::{Cluster, until};

/// Two workers with these pages.
fn cluster(pages: [&[u8]; 2], kind: &str) -> Cluster {
    let setup = Cluster::of("python3 {fixtures}/pages.py").workers(2).options("--scrape /metrics");
    for (worker, page) in (1..).zip(pages) {
        fs::write(setup.folder.path().join(format!("page-{worker}")), page).expect("the folder is there");
    }
    setup.file("type-1", kind).file("type-2", kind).start()
}

/// How many lines of this worker's page one scrape leaves out.
fn left_out(cluster: &Cluster, worker: &str) -> u64 {
    let count = || cluster.metrics().count("clusterd_worker_scrape_errors_total", &[("worker", worker)]);
    let before = count();
    count() - before
}

/// A series as Prometheus keeps it, without what it adds.
fn series(found: Found) -> BTreeMap<String, String> {
    let series = found.into_iter().map(|(labels, value)| {
        let name = labels["__name__"].clone();
        let own =
            labels.into_iter().filter(|(name, _)| !["__name__", "job", "instance"].contains(&name.as_str()));
        let own: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
        (format!("{name}{{{}}}", own.join(",")), value)
    });
    series.collect()
}

/// Every line spoils a page, for Prometheus or for promtool, or did once.
const HOSTILE: &[u8] = b"# HELP x \\ back\n# TYPE x gauge\nx{id=\"1\"} 1\n# HELP x \\q\n\
    x{__name__=\"y\"} 2\nx{id=\"2\"} 1e400\nx{id=\"3\"} -nan\nx{id=\"4\"} 4 -5\nx{id=\"5\"} 5\r\n\
    x{id=\"6\",id=\"7\"} 6\nx{id=\"\\t\"} 7\nx{id=\"\xff\"} 8\nx{id=\"a\0b\"} 9\n\0\nx{id=\"10\"} 0x1p3\n\
    # TYPE x counter\n# TYPE i info\ni_info 1\n# TYPE weird thing\n# TYPE g gaugehistogram\ng_bucket{le=\"1\"} 1\n\
    # TYPE h histogram\nh_bucket{le=\"x\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 2\nh_sum 3\nh_count 1\n\
    # TYPE a summary\na{quantile=\"half\"} 1\na{quantile=\"0.5\"} 2\n# TYPE a_sum gauge\na_sum 3\n\
    # TYPE a_count gauge\na_count 4\n# EOF\nworker_process_z 1\nprocess_z 2\n# TYPE process_z gauge\n\
    # TYPE clusterd_workers summary\nclusterd_workers{worker=\"9\",exported_worker=\"8\"} 3\n\
    # TYPE req counter\nreq_total{code=\"200\"} 5 # {trace_id=\"1\"} 1\n{\"utf.8\"} 1\n<html>\n";

/// Of other types than the first worker's.
const DIFFERENT: &[u8] =
    b"# TYPE x counter\nx 1\n# TYPE h_bucket summary\nh_bucket{quantile=\"0.5\"} 1\nh_bucket_sum 2\n\
    # TYPE req_total gauge\nreq_total 7\n# HELP req Late.\nfine{b=\"\"} 8\nfine 9\n# TYPE fine gauge";

#[test]
fn no_page_of_a_worker_spoils_the_merged_one() {
    needs!("python3", "prometheus", "promtool");
    let cluster = cluster([HOSTILE, DIFFERENT], "text/plain");
    let page = cluster.probe("/metrics").text();
    promtool(&page).unwrap_or_else(|error| panic!("{error}\n{page}"));
    assert!(promtool(&String::from_utf8_lossy(HOSTILE)).is_err(), "the test has lost its point");
    assert_eq!([left_out(&cluster, "1"), left_out(&cluster, "2")], [21, 5], "{page}");

    let alone = self::cluster([HOSTILE, HOSTILE], "text/plain");
    let prometheus = Prometheus::of(&[("merged", cluster.admin()), ("worker", alone.address())]);
    prometheus.wait_taken("merged", 3.0);
    assert_eq!(prometheus.taken("worker"), 0.0, "a worker's own page is none that Prometheus takes");
    until("Prometheus has stored what is right", || {
        let stored = series(prometheus.query("{job='merged',__name__!~'(clusterd|process|scrape|up).*'}"));
        // Shown if it never is.
        println!("{stored:#?}");
        stored.iter().map(|(series, value)| (series.as_str(), value.as_str())).eq(STORED).then_some(())
    });
}

/// What Prometheus keeps of both.
const STORED: [(&str, &str); 13] = [
    ("a{quantile=0.5,worker=1}", "2"),
    ("fine{worker=2}", "8"),
    ("g_bucket{le=1,worker=1}", "1"),
    ("h_bucket{le=1,worker=1}", "1"),
    ("h_count{worker=1}", "1"),
    ("h_sum{worker=1}", "3"),
    ("i_info{worker=1}", "1"),
    ("req_total{code=200,worker=1}", "5"),
    ("worker_clusterd_workers{exported_exported_worker=9,exported_worker=8,worker=1}", "3"),
    ("worker_process_z{worker=1}", "1"),
    ("x{id=1,worker=1}", "1"),
    ("x{id=3,worker=1}", "NaN"),
    ("x{id=5,worker=1}", "5"),
];

/// As prom-client writes it with `Registry.OPENMETRICS_CONTENT_TYPE`.
const OPENMETRICS: &[u8] = b"# HELP http_requests Requests, \\\"all\\\".\n# TYPE http_requests counter\n\
    http_requests_total{code=\"200\"} 3 # {trace_id=\"abc\"} 1 1395066363.2\n\
    # HELP seconds How long.\n# TYPE seconds histogram\nseconds_bucket{le=\"1\"} 2 # {trace_id=\"abc\"} 0.5 1395066363.2\n\
    seconds_bucket{le=\"+Inf\"} 3\nseconds_sum 4\nseconds_count 3\n\
    # HELP app About it.\n# TYPE app info\napp_info{version=\"1\"} 1\n# EOF\n";

#[test]
fn what_is_written_in_openmetrics_arrives_with_its_types() {
    needs!("python3", "promtool");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let cluster = cluster([OPENMETRICS, OPENMETRICS], kind);
    let page = cluster.probe("/metrics").text();
    assert_eq!(promtool(&page), Ok(String::new()), "{page}");
    let expected = "# HELP app_info About it.\n# TYPE app_info gauge\n\
         app_info{worker=\"1\",version=\"1\"} 1\napp_info{worker=\"2\",version=\"1\"} 1\n\
         # HELP http_requests_total Requests, \"all\".\n# TYPE http_requests_total counter\n\
         http_requests_total{worker=\"1\",code=\"200\"} 3\nhttp_requests_total{worker=\"2\",code=\"200\"} 3\n\
         # HELP seconds How long.\n# TYPE seconds histogram\n\
         seconds_bucket{worker=\"1\",le=\"1\"} 2\nseconds_bucket{worker=\"1\",le=\"+Inf\"} 3\n\
         seconds_sum{worker=\"1\"} 4\nseconds_count{worker=\"1\"} 3\n\
         seconds_bucket{worker=\"2\",le=\"1\"} 2\nseconds_bucket{worker=\"2\",le=\"+Inf\"} 3\n\
         seconds_sum{worker=\"2\"} 4\nseconds_count{worker=\"2\"} 3\n";
    assert!(page.ends_with(expected), "{page}");
    assert_eq!([left_out(&cluster, "1"), left_out(&cluster, "2")], [0, 0]);
}

#[test]
fn promtool_has_nothing_to_say_about_clusterds_own_metrics() {
    needs!("promtool");
    let page = Cluster::demo().start().probe("/metrics").text();
    assert_eq!(promtool(&page), Ok(String::new()), "{page}");
}

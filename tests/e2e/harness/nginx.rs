//! How nginx is configured by the tests that run it.

/// A configuration in which every path is relative to the prefix, from what stands at its top and in its server.
macro_rules! nginx_config {
    ($main:literal, $server:literal) => {
        concat!(
            $main,
            "
pid nginx.pid;
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        ",
            $server,
            r#"
        location / { return 200 "worker of nginx"; }
    }
}
"#
        )
    };
}

pub(crate) use nginx_config;

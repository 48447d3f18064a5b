//! What Spin adds to a request before a component sees it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Request, Uri};

use crate::router::RouteMatch;

/// Adds Spin's headers about the route.
///
/// A value that the client sent under one of those names stays, in front of Spin's own: that is what Spin does, so a
/// component must not trust the first value.
pub(crate) fn add_route(request: &mut Parts, route: &RouteMatch<'_>, client: SocketAddr) -> Result<()> {
    for (name, value) in &request.headers {
        ensure!(std::str::from_utf8(value.as_bytes()).is_ok(), "the header {name} is not UTF-8");
    }
    let host = request.headers.get(HOST).map_or("localhost".as_bytes(), HeaderValue::as_bytes);
    let host = String::from_utf8_lossy(host).into_owned();
    let path_and_query = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let fixed = [
        ("spin-path-info", route.path_info.clone()),
        ("spin-full-url", format!("http://{host}{path_and_query}")),
        ("spin-matched-route", route.matched_route().to_owned()),
        ("spin-base-path", "/".to_owned()),
        ("spin-raw-component-route", route.raw_route().to_owned()),
        ("spin-component-route", route.route_prefix().to_owned()),
        ("spin-client-addr", client.to_string()),
    ];
    let parameters = route.parameters.iter().map(|(name, value)| {
        (format!("spin-path-match-{}", name.to_ascii_lowercase().replace('_', "-")), value.clone())
    });
    for (name, value) in fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(parameters) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes()))
        {
            request.headers.append(name, value);
        }
    }
    Ok(())
}

/// Puts scheme and authority into the URI; the authority comes from it or from the `Host` header, which must not
/// differ.
pub(crate) fn complete_uri<B>(request: &mut Request<B>) -> Result<()> {
    let from_header = request
        .headers()
        .get(HOST)
        .map(|host| -> Result<Authority> { Ok(host.to_str()?.parse()?) })
        .transpose()
        .context("the Host header is not an authority")?;
    let mut uri = request.uri().clone().into_parts();
    let authority = match (from_header, uri.authority) {
        (Some(header), Some(uri)) => {
            ensure!(header == uri, "the Host header and the URI name different authorities");
            header
        }
        (header, uri) => header.or(uri).context("the request names no host")?,
    };
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(uri)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::HttpTrigger;
    use crate::router::Router;

    fn prepared(uri: &str, headers: &[(&str, &str)]) -> Result<Parts> {
        let trigger: HttpTrigger = toml::from_str("route = '/jobs/:job_id/...'\ncomponent = 'jobs'").unwrap();
        let router = Router::new(&[trigger]).unwrap();
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        complete_uri(&mut request)?;
        let (mut parts, ()) = request.into_parts();
        let path = parts.uri.path().to_owned();
        add_route(&mut parts, &router.route(&path).unwrap(), "127.0.0.1:9".parse().unwrap())?;
        Ok(parts)
    }

    #[test]
    fn a_component_is_told_how_its_route_matched() {
        let parts = prepared("/jobs/7%2F8/a/b/?c=d", &[("host", "example.com:80")]).unwrap();
        for (name, value) in [
            ("spin-path-info", "/a/b/"),
            ("spin-full-url", "http://example.com:80/jobs/7%2F8/a/b/?c=d"),
            ("spin-matched-route", "/jobs/:job_id/..."),
            ("spin-base-path", "/"),
            ("spin-raw-component-route", "/jobs/:job_id/..."),
            ("spin-component-route", "/jobs/:job_id"),
            ("spin-client-addr", "127.0.0.1:9"),
            ("spin-path-match-job-id", "7%2F8"),
        ] {
            assert_eq!(parts.headers[name], value, "{name}");
        }
        assert_eq!(parts.uri, "http://example.com:80/jobs/7%2F8/a/b/?c=d");
    }

    #[test]
    fn a_value_from_the_client_comes_first() {
        let parts = prepared("/jobs/7", &[("host", "h"), ("Spin-Client-Addr", "6.6.6.6:6")]).unwrap();
        let values: Vec<_> = parts.headers.get_all("spin-client-addr").iter().collect();
        assert_eq!(values, ["6.6.6.6:6", "127.0.0.1:9"]);
    }

    #[test]
    fn a_request_must_name_one_host() {
        assert!(prepared("/jobs/7", &[]).is_err());
        assert!(prepared("http://a/jobs/7", &[("host", "b")]).is_err());
        assert!(prepared("http://a/jobs/7", &[("host", "a")]).is_ok());
    }
}

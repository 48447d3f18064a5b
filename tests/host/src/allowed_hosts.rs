//! Which addresses a component may reach: `allowed_outbound_hosts`, with Spin's meaning.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use url::Url;

use crate::template::Template;

/// All that one component may reach. Nothing, when there are no entries.
#[derive(Debug, Default)]
pub(crate) struct AllowedHosts(Vec<AllowedHost>);

/// One entry: `scheme://host[:port]`, each part of which may be a wildcard.
#[derive(Debug, PartialEq)]
pub(crate) struct AllowedHost {
    scheme: Option<String>,
    host: Host,
    port: Port,
}

#[derive(Debug, PartialEq)]
enum Host {
    Any,
    /// Of domains only, never of addresses. With the leading dot.
    Subdomain(String),
    Network(IpNet),
    /// A domain in its usual form, in small letters, or an address.
    Exactly(url::Host),
    /// The application itself, which this host does not offer; it allows nothing.
    Itself,
}

#[derive(Debug, PartialEq)]
enum Port {
    Any,
    /// The end is not part of it.
    Between(Range<u32>),
}

impl AllowedHosts {
    /// Parses the entries of a manifest, with the variables' values put in.
    pub(crate) fn parse(entries: &[String], values: &BTreeMap<String, String>) -> Result<Self> {
        entries
            .iter()
            .map(|entry| AllowedHost::parse(&Template::parse(entry)?.resolve(values)?))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether a URL with scheme and host may be reached. One that can't be parsed may not.
    pub(crate) fn allows(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        // Read again, because only the URLs of the web know addresses: that of PostgreSQL would be a domain's name.
        let Some(Ok(host)) = url.host_str().map(url::Host::parse) else { return false };
        let port = url.port().or_else(|| default_port(url.scheme()));
        self.0.iter().any(|allowed| allowed.allows(url.scheme(), &host, port))
    }
}

impl AllowedHost {
    /// Parses one entry; the error says what its form must be.
    pub(crate) fn parse(entry: &str) -> Result<Self> {
        let text = entry.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            bail!(
                "{text:?} has no scheme; the form is <scheme>://<host>[:<port>], `*` is allowed for each part"
            );
        };
        ensure!(
            scheme == "*" || scheme.chars().all(char::is_alphabetic),
            "{text:?}: a scheme has only letters, or is `*`"
        );
        let (host, rest) = rest.rsplit_once(':').unwrap_or((rest, ""));
        let (port, path) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(path.is_empty(), "{text:?} has a path, which is not allowed");
        Ok(Self {
            scheme: (scheme != "*").then(|| scheme.to_owned()),
            host: Host::parse(host.trim()).with_context(|| format!("in {text:?}"))?,
            port: Port::parse(port, scheme).with_context(|| format!("in {text:?}"))?,
        })
    }

    fn allows(&self, scheme: &str, host: &url::Host, port: Option<u16>) -> bool {
        self.scheme.as_deref().is_none_or(|allowed| allowed == scheme)
            && self.host.allows(host)
            && self.port.allows(port)
    }
}

impl Host {
    fn parse(host: &str) -> Result<Self> {
        if host == "*" {
            return Ok(Self::Any);
        }
        if host == "self" || host == "self.alt" {
            return Ok(Self::Itself);
        }
        if let Ok(network) = host.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        let host = host.trim_end_matches('/');
        ensure!(!host.contains('/'), "a host has no path");
        ensure!(!host.starts_with('{'), "lists of hosts are not supported");
        if let Some(domain) = host.strip_prefix("*.") {
            ensure!(!domain.contains('*'), "`*` is only allowed as the first label of a host");
            return Ok(Self::Subdomain(format!(".{domain}")));
        }
        ensure!(!host.contains('*'), "`*` is only allowed as a whole host or as its first label");
        Ok(Self::Exactly(url::Host::parse(host).with_context(|| format!("{host:?} is no host"))?))
    }

    fn allows(&self, host: &url::Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Subdomain(suffix), url::Host::Domain(domain)) => domain.ends_with(suffix),
            (Self::Network(network), url::Host::Ipv4(address)) => network.contains(&IpAddr::V4(*address)),
            (Self::Network(network), url::Host::Ipv6(address)) => network.contains(&IpAddr::V6(*address)),
            (Self::Exactly(named), host) => named == host,
            (Self::Subdomain(_) | Self::Network(_) | Self::Itself, _) => false,
        }
    }
}

impl Port {
    fn parse(port: &str, scheme: &str) -> Result<Self> {
        let number = |text: &str| {
            text.parse::<u16>().map(u32::from).with_context(|| format!("the port {text:?} is not a number"))
        };
        match port {
            "" => {
                let port = default_port(scheme).map(u32::from).with_context(|| {
                    format!("a port is missing, and the scheme {scheme:?} has no usual one")
                })?;
                Ok(Self::Between(port..port + 1))
            }
            "*" => Ok(Self::Any),
            _ => match port.split_once("..") {
                Some((first, end)) => Ok(Self::Between(number(first)?..number(end)?)),
                None => number(port).map(|port| Self::Between(port..port + 1)),
            },
        }
    }

    fn allows(&self, port: Option<u16>) -> bool {
        match self {
            Self::Any => true,
            Self::Between(ports) => port.is_some_and(|port| ports.contains(&u32::from(port))),
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "postgres" => Some(5432),
        "mysql" => Some(3306),
        "redis" => Some(6379),
        "mqtt" => Some(1883),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, url: &str) -> bool {
        AllowedHosts::parse(&[entry.to_owned()], &BTreeMap::new()).expect(entry).allows(url)
    }

    #[test]
    fn an_entry_allows_what_it_names_and_nothing_else() {
        for (entry, url, expected) in [
            ("http://127.0.0.1:4000", "http://127.0.0.1:4000/v1/models?x=1", true),
            ("http://127.0.0.1:4000", "http://127.0.0.1:4001/", false),
            ("http://127.0.0.1:4000", "http://localhost:4000/", false),
            ("http://127.0.0.1:4000", "https://127.0.0.1:4000/", false),
            ("http://127.0.0.1:4000/", "http://127.0.0.1:4000/", true),
            ("http://example.com", "http://example.com/", true),
            ("http://example.com", "http://example.com:80/", true),
            ("http://example.com", "http://example.com:8080/", false),
            ("https://example.com", "https://example.com/", true),
            ("https://example.com", "https://user:pass@example.com/", true),
            ("https://example.com", "https://example.com.evil.org/", false),
            ("https://example.com", "https://evil.org/@example.com", false),
            ("https://*.example.com", "https://a.b.example.com/", true),
            ("https://*.example.com", "https://example.com/", false),
            ("https://*.example.com", "https://evilexample.com/", false),
            ("https://*.example.com/", "https://a.example.com/", true),
            ("http://*.example.com:*", "http://a.example.com:9/", true),
            ("http://*.example.com:*", "http://a.example.com/", true),
            ("http://*.example.com:*", "http://example.com:9/", false),
            ("http://*.example.com:*", "https://a.example.com:9/", false),
            ("http://*.0.0.1:80", "http://127.0.0.1/", false),
            ("https://*", "https://anything.example/", true),
            ("https://*", "https://127.0.0.1/", true),
            ("https://*", "https://anything.example:8443/", false),
            ("https://*", "http://anything.example/", false),
            ("https://*", "http://anything.example:443/", false),
            ("https://*:*", "https://anything.example:8443/", true),
            ("https://*:*", "http://anything.example:8443/", false),
            ("*://*:443", "https://anything.example/", true),
            ("*://*:443", "http://anything.example/", false),
            ("*://*:*", "http://[::1]:8080/", true),
            ("*://*:*", "postgres://127.0.0.1", true),
            ("*://*:*", "redis://anything:1", true),
            ("*://example.com:*", "mysql://example.com:9", true),
            ("http://localhost:8000..9000", "http://localhost:8000/", true),
            ("http://localhost:8000..9000", "http://localhost:8999/", true),
            ("http://localhost:8000..9000", "http://localhost:9000/", false),
            ("http://10.0.0.0/8:80", "http://10.1.2.3/", true),
            ("http://10.0.0.0/8:80", "http://11.1.2.3/", false),
            ("http://10.1.2.3/8:80", "http://10.9.9.9/", true),
            ("http://ff00::/8:80", "http://[ff00::1]/", true),
            ("http://ff00::/8:80", "http://[fe00::1]/", false),
            ("http://[::1]:80", "http://[::1]/", true),
            ("http://Example.COM", "http://eXample.com/", true),
            ("postgres://10.0.0.0/8", "postgres://10.1.2.3", true),
            ("postgres://127.0.0.1:5432", "postgres://127.0.0.1", true),
            ("postgres://db", "postgres://db:5432", true),
            ("postgres://db:5433", "postgres://db:5432", false),
            ("http://self", "http://127.0.0.1/", false),
            ("http://127.0.0.1:80", "not a url", false),
        ] {
            assert_eq!(allows(entry, url), expected, "{entry} for {url}");
        }
    }

    #[test]
    fn no_entries_allow_nothing() {
        assert!(!AllowedHosts::default().allows("http://127.0.0.1/"));
    }

    #[test]
    fn malformed_entries_are_refused() {
        for entry in [
            "",
            "*",
            "example.com",
            "http://example.com/path",
            "http://example.com:80/path",
            "*://*",
            "*://example.com",
            "https://*/",
            "https://*/path",
            "https://*.*",
            "https://*example.com",
            "https://example.*",
            "insecure:allow-all",
            "http://[::1]",
            "http://",
            "http://a b",
            "http://a*b.com",
            "http://*.a.*.com",
            "ftp://example.com",
            "http://example.com:port",
            "http://example.com:1..x",
            "h-t://example.com",
        ] {
            assert!(AllowedHost::parse(entry).is_err(), "{entry:?}");
        }
    }

    #[test]
    fn variables_are_put_in_before_parsing() {
        let values = BTreeMap::from([("url".to_owned(), "http://127.0.0.1:4000".to_owned())]);
        let hosts = AllowedHosts::parse(&["{{ url }}".to_owned()], &values).unwrap();
        assert!(hosts.allows("http://127.0.0.1:4000/x"));
    }

    #[test]
    fn wildcards_may_come_from_variables_whole_or_in_part() {
        let entries = ["{{ webhooks }}".to_owned(), "http://*.{{ domain }}:{{ port }}".to_owned()];
        let hosts = |webhooks: &str, port: &str| {
            let given = [("webhooks", webhooks), ("domain", "example.com"), ("port", port)];
            let values = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            AllowedHosts::parse(&entries, &values)
        };
        let wide = hosts("https://*:*", "*").unwrap();
        assert!(wide.allows("https://hooks.example.org:8443/x") && wide.allows("http://a.example.com:81/"));
        assert!(!wide.allows("http://hooks.example.org/") && !wide.allows("http://example.com:81/"));
        let narrow = hosts("https://*.hooks.example.org", "80").unwrap();
        assert!(narrow.allows("https://a.hooks.example.org/") && narrow.allows("http://a.example.com/"));
        assert!(!narrow.allows("https://hooks.example.org/") && !narrow.allows("http://a.example.com:81/"));
        assert!(hosts("", "*").is_err(), "an empty variable is no entry");
        assert!(hosts("https://a https://b", "*").is_err(), "and a list is none either");
    }
}

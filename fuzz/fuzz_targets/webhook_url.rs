//! Where alerts are sent.
//!
//! * Only http and https, without credentials, on one line.
//! * The host that the sender connects to is the one that other readers of URLs see, so no check of it can be fooled.
#![no_main]

use axum::http::{Request, Uri};
use libfuzzer_sys::fuzz_target;
use url::Url;
use values::WebhookUrl;

#[path = "../../components/tenancy/src/teams/values.rs"]
#[allow(dead_code, reason = "what only the component needs")]
mod values;

fuzz_target!(|text: &str| {
    let Ok(url) = WebhookUrl::try_from(text.to_owned()) else { return };
    assert_eq!(serde_json::to_value(&url).expect("JSON"), text);
    assert!(text.len() <= 2000 && text.is_ascii());
    assert!(!text.contains(|c: char| c.is_control() || c == ' ' || c == '@' && !text.contains('/')));
    let sent = Request::post(text).body(()).expect("a request");
    let uri: &Uri = sent.uri();
    assert!(
        uri.port_u16().is_some()
            || uri.authority().is_some_and(|authority| authority.as_str() == authority.host())
    );
    // A host that can't be one, like 127.0.0.x, is nobody's.
    let Ok(other) = Url::parse(text) else { return };
    assert!(matches!(other.scheme(), "http" | "https"));
    assert_eq!((other.username(), other.password()), ("", None));
    let host = uri.host().expect("a host");
    assert!(!host.is_empty());
    assert_eq!(uri.port_u16().or(default_port(uri)), other.port_or_known_default(), "{text}");
    assert_eq!(Url::parse(&format!("http://{host}/")).expect("a host").host(), other.host(), "{text}");
});

fn default_port(uri: &Uri) -> Option<u16> {
    Some(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

//! The headers that a caller is known by: `Authorization` and `Idempotency-Key`, one on each line of the input, in
//! turn.
//!
//! * A key is taken only from a single header of the documented form, byte for byte. Two keys never count as one.
//! * A refusal is a 401 or names its header.
#![no_main]

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use libfuzzer_sys::fuzz_target;
use shared::{
    error::Code,
    http::{caller::bearer, mutation::idempotency_key},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    for (line, name) in
        input.split(|byte| *byte == b'\n').zip([AUTHORIZATION, IDEMPOTENCY_KEY].iter().cycle()).take(8)
    {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let sent = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    match bearer(&headers) {
        Ok(key) => {
            let [value] = sent(AUTHORIZATION)[..] else { panic!("several headers") };
            let (scheme, rest) = value.split_at(7);
            assert!(scheme.eq_ignore_ascii_case(b"bearer "));
            assert_eq!(rest, key.expose().as_bytes());
            assert!(!rest.is_empty() && rest.is_ascii() && !rest.contains(&b' '));
            assert_eq!(format!("{key:?}"), "VirtualKey(SecretBox<str>([REDACTED]))");
            assert!(key.hint().len() <= 4);
        }
        Err(refusal) => assert_eq!(refusal.code, Code::Unauthenticated),
    }
    match idempotency_key(&headers) {
        Ok(None) => assert!(sent(IDEMPOTENCY_KEY).is_empty()),
        Ok(Some(key)) => {
            assert_eq!(sent(IDEMPOTENCY_KEY), [key.as_bytes()]);
            assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
        Err(refusal) => fuzz::assert_refusal(refusal),
    }
});

//! TCP ports of 127.0.0.1.

use anyhow::{Context, Result};
use std::net::TcpListener;
use uuid::Uuid;

/// Where free ports are looked for: above what services use, below what systems hand out for outgoing connections.
const FIRST: u16 = 20_001;
const COUNT: u16 = 11_999;

/// A port that nothing listens on, from 20001 to 31999.
pub fn free() -> Result<u16> {
    // A random start keeps apart those who look at the same time.
    let start = (Uuid::new_v4().as_u128() % u128::from(COUNT)) as u16;
    let mut candidates = (0..COUNT).map(|step| FIRST + (start + step) % COUNT);
    candidates.find(|port| is_free(*port)).context("no port from 20001 to 31999 is free")
}

/// Whether nothing listens on a port.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

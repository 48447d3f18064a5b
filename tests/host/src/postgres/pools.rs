//! Connection pools, one per address, with Spin's settings.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, NoTls};

use crate::allowed_hosts::AllowedHosts;
use crate::wit::spin::postgres::postgres::Error;

/// A connection out of a pool.
pub(crate) type PooledClient = deadpool_postgres::Object;

/// The pools of one component.
///
/// A connection is reset when it is taken out, with what `DISCARD ALL` does except for prepared statements' plans, and
/// *not* rolled back: an open transaction goes to the next user, as in Spin.
pub(crate) struct Pools {
    most_connections: usize,
    by_address: Mutex<HashMap<String, Pool>>,
}

impl Pools {
    /// No pools yet; each will have at most `most_connections`.
    pub(crate) fn new(most_connections: usize) -> Self {
        Self { most_connections, by_address: Mutex::default() }
    }

    /// A connection to `address`, a connection string or URL whose hosts must all be allowed. Waits when all are in
    /// use.
    pub(crate) async fn get(&self, allowed: &AllowedHosts, address: &str) -> Result<PooledClient, Error> {
        let pool = self.pool(allowed, address).map_err(Error::ConnectionFailed)?;
        pool.get().await.map_err(|error| Error::ConnectionFailed(format!("{error:?}")))
    }

    /// Closes all connections as they come back and refuses new ones.
    pub(crate) fn close(&self) {
        for pool in self.by_address.lock().unwrap_or_else(PoisonError::into_inner).values() {
            pool.close();
        }
    }

    fn pool(&self, allowed: &AllowedHosts, address: &str) -> Result<Pool, String> {
        let mut pools = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(address) {
            return Ok(pool.clone());
        }
        let config: Config = address.parse().map_err(|error: tokio_postgres::Error| error.to_string())?;
        check(&config, allowed)?;
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Clean };
        let pool = Pool::builder(Manager::from_config(config, NoTls, settings))
            .max_size(self.most_connections)
            .build()
            .map_err(|error| error.to_string())?;
        pools.insert(address.to_owned(), pool.clone());
        Ok(pool)
    }
}

fn check(config: &Config, allowed: &AllowedHosts) -> Result<(), String> {
    let ports = config.get_ports();
    for (index, host) in config.get_hosts().iter().enumerate() {
        let Host::Tcp(host) = host else {
            return Err("Unix sockets are not supported on WebAssembly".into());
        };
        let port = ports.get(index).or(if ports.len() == 1 { ports.first() } else { None });
        let url = format!("postgres://{host}{}", port.map(|port| format!(":{port}")).unwrap_or_default());
        if !allowed.allows(&url) {
            return Err(format!("address {url} is not permitted"));
        }
    }
    if config.get_hosts().is_empty() {
        return Err("the address has no host".into());
    }
    match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => Ok(()),
        _ => Err("sslmode=require: this host has no TLS for PostgreSQL".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check_address(address: &str) -> Result<(), String> {
        let allowed =
            AllowedHosts::parse(&["postgres://127.0.0.1:5432".to_owned()], &BTreeMap::new()).unwrap();
        check(&address.parse().unwrap(), &allowed)
    }

    #[test]
    fn only_allowed_addresses_get_a_pool() {
        check_address("host=127.0.0.1 port=5432 user=a").unwrap();
        check_address("postgres://a@127.0.0.1:5432/b?sslmode=prefer").unwrap();
        check_address("host=127.0.0.1 user=a").unwrap();
        for (address, expected) in [
            ("host=127.0.0.1 port=5433", "postgres://127.0.0.1:5433 is not permitted"),
            ("host=localhost port=5432", "postgres://localhost:5432 is not permitted"),
            ("host=127.0.0.1,evil port=5432", "postgres://evil:5432 is not permitted"),
            ("host=/run/postgresql", "Unix sockets"),
            ("user=a", "no host"),
            ("host=127.0.0.1 sslmode=require", "TLS"),
        ] {
            assert!(check_address(address).unwrap_err().contains(expected), "{address}");
        }
    }
}

//! `spin:key-value`: one SQLite table behind one connection, as Spin's default store is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use wasmtime::component::{Accessor, FutureReader, HasSelf, Resource, StreamReader};

use crate::guest::Guest;
use crate::wit::spin::key_value::key_value::{Error, Host, HostStore, HostStoreWithStore};

/// The file in the state folder.
const FILE: &str = "sqlite_key_value.db";

/// A store that a component has opened.
pub struct OpenStore {
    label: String,
    store: Arc<KeyValueStore>,
}

/// The database behind all stores of an application. Every operation waits for the one before it.
pub(crate) struct KeyValueStore(Mutex<Connection>);

impl KeyValueStore {
    /// Opens `sqlite_key_value.db` in the folder, which is made when missing; without a folder the store is in memory.
    pub(crate) fn open(folder: Option<&Path>) -> anyhow::Result<Self> {
        let connection = match folder {
            None => Connection::open_in_memory()?,
            Some(folder) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("can't make the state folder {}", folder.display()))?;
                let path = folder.join(FILE);
                Connection::open(&path).with_context(|| format!("can't open {}", path.display()))?
            }
        };
        connection.execute(
            "CREATE TABLE IF NOT EXISTS spin_key_value (
                store TEXT NOT NULL,
                key   TEXT NOT NULL,
                value BLOB NOT NULL,
                PRIMARY KEY (store, key)
            )",
            [],
        )?;
        Ok(Self(Mutex::new(connection)))
    }

    /// Runs one operation where it may block.
    async fn run<R: Send + 'static>(
        self: Arc<Self>,
        operation: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, Error> {
        spawn_blocking(move || operation(&self.0.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|error| Error::Other(error.to_string()))?
            .map_err(|error| Error::Other(error.to_string()))
    }
}

impl Host for Guest {}

impl HostStore for Guest {
    fn drop(&mut self, store: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

impl<T: Send> HostStoreWithStore<T> for HasSelf<Guest> {
    async fn open(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> wasmtime::Result<Result<Resource<OpenStore>, Error>> {
        accessor.with(|mut access| {
            let guest = access.get();
            let Some(store) = guest.component.stores.get(&label).cloned() else {
                return Ok(Err(Error::AccessDenied));
            };
            Ok(Ok(guest.table.push(OpenStore { label, store })?))
        })
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let (label, store) = opened(accessor, &store)?;
        Ok(store
            .run(move |connection| {
                connection
                    .prepare_cached("SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2")?
                    .query_row([&label, &key], |row| row.get(0))
                    .optional()
            })
            .await)
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let (label, store) = opened(accessor, &store)?;
        Ok(store
            .run(move |connection| {
                connection
                    .prepare_cached(
                        "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
                         ON CONFLICT (store, key) DO UPDATE SET value = ?3",
                    )?
                    .execute(params![label, key, value])
                    .map(drop)
            })
            .await)
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        let (label, store) = opened(accessor, &store)?;
        Ok(store
            .run(move |connection| {
                connection
                    .prepare_cached("DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2")?
                    .execute([&label, &key])
                    .map(drop)
            })
            .await)
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let (label, store) = opened(accessor, &store)?;
        Ok(store
            .run(move |connection| {
                connection
                    .prepare_cached("SELECT 1 FROM spin_key_value WHERE store = ?1 AND key = ?2")?
                    .exists([&label, &key])
            })
            .await)
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), Error>>)> {
        let (label, store) = opened(accessor, &store)?;
        let keys = store
            .run(move |connection| {
                connection
                    .prepare_cached("SELECT key FROM spin_key_value WHERE store = ?1")?
                    .query_map([&label], |row| row.get(0))?
                    .collect::<rusqlite::Result<Vec<String>>>()
            })
            .await;
        let (keys, outcome) = match keys {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        let (sender, receiver) = oneshot::channel();
        _ = sender.send(outcome);
        accessor.with(|mut access| {
            Ok((StreamReader::new(&mut access, keys)?, FutureReader::new(&mut access, receiver)?))
        })
    }
}

fn opened<T>(
    accessor: &Accessor<T, HasSelf<Guest>>,
    store: &Resource<OpenStore>,
) -> wasmtime::Result<(String, Arc<KeyValueStore>)> {
    accessor.with(|mut access| {
        let open = access.get().table.get(store)?;
        Ok((open.label.clone(), open.store.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_in_a_folder_outlasts_the_application() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("made/when/missing");
        let first = Arc::new(KeyValueStore::open(Some(&folder)).unwrap());
        first
            .run(|db| db.execute("INSERT INTO spin_key_value VALUES ('default', 'key', x'00ff')", []))
            .await
            .unwrap();
        let second = Arc::new(KeyValueStore::open(Some(&folder)).unwrap());
        let value: Vec<u8> = second
            .run(|db| db.query_row("SELECT value FROM spin_key_value", [], |row| row.get(0)))
            .await
            .unwrap();
        assert_eq!(value, [0, 255]);
        assert!(folder.join("sqlite_key_value.db").is_file());
    }
}

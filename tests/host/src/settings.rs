//! What can be set when an application is started.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How to start an application. The defaults are those of `spin up`, but for the port, which is any free one, and for
/// the key-value store, which is in memory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; port 0 takes a free port, which [`Running::addr`](crate::Running::addr) tells.
    pub listen: SocketAddr,
    /// Values of application variables. They win over `SPIN_VARIABLE_<NAME>` in the environment, which wins over the
    /// manifest's defaults. A name that the manifest does not declare is an error.
    pub variables: BTreeMap<String, String>,
    /// The folder for what must outlast the application: the key-value store. Made when missing.
    pub state_dir: Option<PathBuf>,
    /// How many requests one instance serves, one after another or at once, before it is dropped.
    pub max_instance_reuse_count: usize,
    /// How many requests one instance serves at the same time.
    pub max_instance_concurrent_reuse_count: usize,
    /// How long a request may take until its answer starts, and how long work after the answer may go on. `None`: for
    /// ever.
    pub request_timeout: Option<Duration>,
    /// How long an instance with nothing to do is kept.
    pub idle_instance_timeout: Duration,
    /// How many bytes of memory an instance may have; one that asks for more traps. `None`: as many as there are.
    pub max_instance_memory: Option<usize>,
    /// Database connections per component and address. One more waits for a free one, without end.
    pub max_pg_connections: usize,
    /// Where the guests' output and the host's own messages about them go.
    pub logs: Logs,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            variables: BTreeMap::new(),
            state_dir: None,
            max_instance_reuse_count: 128,
            max_instance_concurrent_reuse_count: 16,
            request_timeout: None,
            idle_instance_timeout: Duration::from_secs(1),
            max_instance_memory: None,
            max_pg_connections: 64,
            logs: Logs::Stderr,
        }
    }
}

/// Where log lines go. A line is written whole, so lines of different instances never mix.
#[derive(Clone, Debug, Default)]
pub enum Logs {
    /// The standard error of this process.
    #[default]
    Stderr,
    /// Log lines are discarded.
    Discard,
    /// Appended to a buffer that the caller keeps and can read at any time.
    Memory(Arc<Mutex<Vec<u8>>>),
    /// Appended to a file, which is made when missing.
    File(PathBuf),
}

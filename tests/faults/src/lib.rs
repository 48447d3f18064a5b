//! Faults, for tests that show what survives them.
//!
//! * [`Proxy`] stands in front of a server and refuses, ignores, resets, stalls or delays its connections, or cuts them
//!   at any byte.
//! * [`Postgres`] is a PostgreSQL of a test's own, which can be killed, frozen and started again, also on a disk that
//!   gets full.
//! * [`HostProcess`] is the application in a process of its own, which can be killed and started again.
//! * [`RawServer`] answers everything with the same bytes, whatever they are.
//! * [`Application`] has all of them in their places: clients – hosts – proxies – PostgreSQL and the LiteLLM stand-in.
//!
//! Everything that runs here runs on threads of its own, so a test may block its own, and ends when it is dropped.

mod application;
mod host_process;
mod keeper;
mod postgres;
mod proxy;
mod raw_server;

pub use application::{Application, Setup};
pub use host_process::HostProcess;
pub use postgres::{Disk, Postgres};
pub use proxy::{Direction, Mode, Proxy};
pub use raw_server::{After, RawServer, Script};

use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

/// What proxies and raw servers run on.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("faults")
        .enable_all()
        .build()
        .expect("threads for proxies")
});

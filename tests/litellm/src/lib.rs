//! A stand-in for the LiteLLM proxy: an HTTP server with the wire behaviour that was recorded from LiteLLM 1.106.2, for
//! tests and for a start without configuration. It is not LiteLLM: it calls no model, and it keeps its state in memory.
//!
//! [`StandIn`] is a server inside the test process; what it was asked and what it holds can be looked at, and it can be
//! made to fail. Models misbehave by name and by marks in the prompt as the README says, so that the same tests can run
//! against the real LiteLLM.

#![deny(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

mod auth;
mod banned;
mod behaviour;
mod call;
mod chat;
mod cost;
mod error;
mod fields;
mod journal;
mod keys;
mod limits;
mod models;
mod records;
mod reply;
mod server;
mod spend;
mod state;
mod stream;
mod teams;
mod time;
mod upstream;

pub use journal::{Outcome, Recorded};
pub use records::{KeyRecord, TeamRecord};

use cost::Cost;
use journal::Journal;
use state::{App, Shared, State};

/// Where a stand-in listens, and who its admin is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address; port 0 is any free port. The default is 127.0.0.1:0.
    pub listen: SocketAddr,
    /// The admin's key, which starts with `sk-`. The default is `sk-stand-in-master`.
    pub master_key: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            master_key: "sk-stand-in-master".to_owned(),
        }
    }
}

/// A running server. Dropping it stops it and cuts its connections.
///
/// It has threads of its own, so it may outlive the runtime that started it.
pub struct StandIn {
    app: App,
    address: SocketAddr,
    /// Taken when the server stops.
    runtime: Option<Runtime>,
}

impl StandIn {
    /// Starts a server that holds everything in memory, and records its requests.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn start(config: Config) -> Result<StandIn> {
        StandIn::launch(config, State::default(), Journal::keeping())
    }

    /// Starts a server that can run for long: it does not record requests. With a state file it begins with the teams
    /// and keys that are in it, and saves them there on every change.
    ///
    /// # Errors
    /// When the address can't be listened on, or the file can't be written or is there and is no saved state.
    pub async fn start_unrecorded(config: Config, state_file: Option<&Path>) -> Result<StandIn> {
        let mut state = match state_file {
            Some(file) => State::load(file)?,
            None => State::default(),
        };
        state.save()?;
        StandIn::launch(config, state, Journal::default())
    }

    fn launch(config: Config, state: State, journal: Journal) -> Result<StandIn> {
        let listener = std::net::TcpListener::bind(config.listen).with_context(|| {
            format!(
                "cannot listen on {}: is another stand-in running? Choose another --listen address",
                config.listen
            )
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("litellm-stand-in")
            .enable_all()
            .build()
            .context("cannot start the stand-in's threads")?;
        let app = Shared::new(config.master_key, state, journal);
        let serving = app.clone();
        runtime.spawn(async move {
            // The listener is valid and the runtime has I/O, so this can't fail; if it did, nobody would answer.
            if let Ok(listener) = TcpListener::from_std(listener) {
                server::serve(listener, serving).await;
            }
        });
        runtime.spawn(save_spend_now_and_then(app.clone()));
        Ok(StandIn { app, address, runtime: Some(runtime) })
    }

    /// The server's base URL, such as `http://127.0.0.1:21500`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The admin's key.
    pub fn master_key(&self) -> &str {
        &self.app.master_key
    }

    /// Every request so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Recorded> {
        self.app.journal().requests()
    }

    /// A team, if it exists.
    pub fn team(&self, team_id: &str) -> Option<TeamRecord> {
        self.app.state().teams.get(team_id).cloned()
    }

    /// The keys of a team, in the order in which they were made. Deleted ones are not among them.
    pub fn keys_of(&self, team_id: &str) -> Vec<KeyRecord> {
        self.app.state().keys_of(team_id).into_iter().cloned().collect()
    }

    /// Lets the next `count` requests to that path answer that status, with LiteLLM's error envelope and no effect.
    /// `/v1` before a path makes no difference. Faults for one path are used up in the order in which they were
    /// planned.
    pub fn fail_next(&self, path: &str, status: u16, count: usize) {
        self.app.journal().plan(path, status, count);
    }

    /// While `down`, every connection is closed without an answer, those that are open included.
    pub fn set_down(&self, down: bool) {
        self.app.down.send_replace(down);
    }

    /// While `late`, the spend log shows nothing, as if LiteLLM had not come to write it.
    pub fn set_spend_log_late(&self, late: bool) {
        self.app.state().spend_log_is_late = late;
    }

    /// Makes the spend log say that a call cost so much, as after the model got a price. Says how many rows it has of
    /// the call.
    pub fn set_spend(&self, call_id: &str, usd: f64) -> usize {
        let mut state = self.app.state();
        let rows = state.spend_log.iter_mut().filter(|row| row.call_id == call_id);
        rows.map(|row| row.cost = Cost::whole(usd)).count()
    }

    /// Loses a team without a trace, and none of its keys. Says whether it was there.
    pub fn lose_team(&self, team_id: &str) -> bool {
        self.app.state().teams.remove(team_id).is_some()
    }

    /// Loses the key with this hash without a trace. Says whether it was there.
    pub fn lose_key(&self, hash: &str) -> bool {
        self.app.state().keys.remove(hash).is_some()
    }

    /// Gives the rows of the spend log so far that are of this model and have no cost one of so much for each token, as
    /// where LiteLLM learns a price late. What keys and teams have spent stays as it is.
    pub fn price_log(&self, model: &str, usd_per_token: f64) {
        self.app.state().price_log(model, usd_per_token);
    }

    /// Saves what is not saved yet.
    ///
    /// # Errors
    /// When the state file can't be written.
    pub fn save(&self) -> Result<()> {
        self.app.state().save()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Spend is saved once a second, as LiteLLM writes it in batches too.
async fn save_spend_now_and_then(app: App) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        if let Err(error) = app.state().save_spend() {
            eprintln!("litellm-stand-in: {error:#}");
        }
    }
}

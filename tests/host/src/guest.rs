//! The state behind one instance, and what all instances of a component have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::allowed_hosts::AllowedHosts;
use crate::key_value::KeyValueStore;
use crate::logs::{GuestOutput, LogSink};
use crate::outbound_http::OutboundHttp;
use crate::postgres::Pools;

/// What all instances of one component of a running application share.
pub(crate) struct ComponentContext {
    /// The component's id in the manifest.
    pub(crate) id: String,
    /// The component's own variables, with their values.
    pub(crate) variables: BTreeMap<String, String>,
    /// The component's environment variables.
    pub(crate) environment: Vec<(String, String)>,
    /// Where it may connect to.
    pub(crate) allowed_hosts: Arc<AllowedHosts>,
    /// The stores that it may open, by label.
    pub(crate) stores: BTreeMap<String, Arc<KeyValueStore>>,
    /// Its database connections.
    pub(crate) pools: Pools,
    /// The client for its HTTP requests.
    pub(crate) http: OutboundHttp,
    /// Where its output goes.
    pub(crate) logs: Arc<LogSink>,
}

/// The state of one instance.
pub(crate) struct Guest {
    pub(crate) component: Arc<ComponentContext>,
    pub(crate) table: ResourceTable,
    /// What it may take of this process.
    pub(crate) limits: StoreLimits,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: OutboundHttp,
}

impl Guest {
    /// A fresh state: no arguments, no files, no sockets, and nothing of this process's environment.
    pub(crate) fn new(component: Arc<ComponentContext>, memory: Option<usize>) -> Self {
        let limits = memory.into_iter().fold(StoreLimitsBuilder::new(), StoreLimitsBuilder::memory_size);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(GuestOutput::new(component.logs.clone()))
            .stderr(GuestOutput::new(component.logs.clone()))
            .envs(&component.environment);
        Self {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            limits: limits.trap_on_grow_failure(memory.is_some()).build(),
            outbound: component.http.clone(),
            component,
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}

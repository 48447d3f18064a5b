//! An application: a checked manifest with its compiled components, ready to be started any number of times.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use wasmtime::component::Component;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::allowed_hosts::AllowedHosts;
use crate::engine::{engine, linker};
use crate::guest::{ComponentContext, Guest};
use crate::instances::{Instances, Lifetime, Limits};
use crate::key_value::KeyValueStore;
use crate::logs::LogSink;
use crate::manifest::{Manifest, Source};
use crate::outbound_http::OutboundHttp;
use crate::postgres::Pools;
use crate::router::Router;
use crate::server::{Running, Server};
use crate::{Settings, variables};

/// A manifest with its compiled components. Clones share everything, so compile once and start many.
#[derive(Clone)]
pub struct Application(Arc<Loaded>);

struct Loaded {
    manifest: Manifest,
    router: Arc<Router>,
    /// By component id; only those that a route leads to.
    services: BTreeMap<String, ServicePre<Guest>>,
}

impl Application {
    /// Reads a manifest file and compiles the components that its routes lead to. Sources are relative to its folder.
    ///
    /// The machine code is cached on disk, so only the first load of a component takes long. Errors name the file, the
    /// place in it, and what is wrong there.
    pub fn load(manifest: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(manifest)
            .with_context(|| format!("can't read the manifest {}", manifest.display()))?;
        let base = manifest.parent().unwrap_or(Path::new(""));
        Self::from_toml(&text, base).with_context(|| format!("in {}", manifest.display()))
    }

    /// As [`load`](Self::load), with the manifest's text given; sources are relative to `base`.
    pub fn from_toml(manifest: &str, base: &Path) -> Result<Self> {
        let manifest = Manifest::parse(manifest)?;
        let router = Arc::new(Router::new(&manifest.trigger.http)?);
        let engine = engine()?;
        let linker = linker(engine)?;
        let routed: BTreeSet<&str> = router.routes().map(|(_, component)| component).collect();
        let mut services = BTreeMap::new();
        for id in routed {
            let Source::Path(source) = &manifest.component[id].source else {
                bail!("[component.{id}]: the source is not a path");
            };
            let path = base.join(source);
            if !path.is_file() {
                bail!("[component.{id}]: there is no file {}; build the components first", path.display());
            }
            let service = Component::from_file(engine, &path)
                .and_then(|component| linker.instantiate_pre(&component))
                .and_then(ServicePre::new)
                .map_err(anyhow::Error::from)
                .with_context(|| format!("[component.{id}]: can't use {} as a component", path.display()))?;
            services.insert(id.to_owned(), service);
        }
        Ok(Self(Arc::new(Loaded { manifest, router, services })))
    }

    /// Starts the application in the current tokio runtime. It has its own variables, connections and key-value store.
    ///
    /// Fails when a required variable has no value, when an allowed host makes no sense with the values, when the state
    /// folder or the log file can't be used, or when the address is taken.
    pub async fn start(&self, settings: Settings) -> Result<Running> {
        let Loaded { manifest, router, services } = &*self.0;
        let values =
            variables::resolve(&manifest.variables, &settings.variables, |name| std::env::var(name).ok())?;
        let logs = Arc::new(LogSink::open(&settings.logs)?);
        let store = Arc::new(KeyValueStore::open(settings.state_dir.as_deref())?);
        let limits = Limits {
            reuse: settings.max_instance_reuse_count,
            concurrent: settings.max_instance_concurrent_reuse_count,
            request_timeout: settings.request_timeout,
            idle_timeout: settings.idle_instance_timeout,
            memory: settings.max_instance_memory,
        };
        let lifetime = Lifetime::default();
        let mut handlers = BTreeMap::new();
        for (id, service) in services {
            let section = &manifest.component[id];
            let allowed_hosts = AllowedHosts::parse(&section.allowed_outbound_hosts, &values)
                .with_context(|| format!("[component.{id}] allowed_outbound_hosts"))?;
            let allowed_hosts = Arc::new(allowed_hosts);
            let component = Arc::new(ComponentContext {
                id: id.clone(),
                variables: variables::of_component(manifest, id, &values)?,
                environment: section.environment.clone().into_iter().collect(),
                http: OutboundHttp::new(allowed_hosts.clone()),
                allowed_hosts,
                stores: section.key_value_stores.iter().map(|label| (label.clone(), store.clone())).collect(),
                pools: Pools::new(settings.max_pg_connections),
                logs: logs.clone(),
            });
            let instances =
                Instances { component, service: service.clone(), limits, lifetime: lifetime.clone() };
            handlers.insert(id.clone(), crate::instances::Handler::new(instances));
        }
        Running::start(settings.listen, Server { router: router.clone(), handlers, logs, lifetime }).await
    }
}

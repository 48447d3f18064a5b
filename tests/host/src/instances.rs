//! The life of instances: how many requests each takes, how long it is kept, and what is left behind when it traps.
//!
//! wasmtime's `ProxyHandler` does the work, with Spin's answers to its questions. An instance with work after its
//! answers is kept until that work is done. A trap ends one instance with all that it was doing, and no other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmtime::component::GuestTaskId;
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, Proxy, ProxyHandler, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::guest::{ComponentContext, Guest};

/// Longer than any timer needs to run: what "never" is for a timer.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Sends requests to instances of one component.
pub(crate) type Handler = ProxyHandler<Instances>;

/// The limits of instances, from [`Settings`](crate::Settings).
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) reuse: usize,
    pub(crate) concurrent: usize,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) idle_timeout: Duration,
    pub(crate) memory: Option<usize>,
}

/// How the end of a running application reaches its connections and instances.
#[derive(Clone, Default)]
pub(crate) struct Lifetime {
    /// No new work; what is idle ends.
    pub(crate) stopping: CancellationToken,
    /// Everything is stopped.
    pub(crate) stopped: CancellationToken,
    /// All connections and instances that still live.
    pub(crate) alive: TaskTracker,
}

/// All instances of one component.
pub(crate) struct Instances {
    pub(crate) component: Arc<ComponentContext>,
    pub(crate) service: ServicePre<Guest>,
    pub(crate) limits: Limits,
    pub(crate) lifetime: Lifetime,
}

impl HandlerState for Instances {
    type StoreData = Guest;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Guest, Expiration, Worker>> {
        let alive = self.lifetime.alive.token();
        let mut store =
            Store::new(self.service.engine(), Guest::new(self.component.clone(), self.limits.memory));
        store.limiter(|guest| &mut guest.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let proxy = Proxy::P3(self.service.instantiate_async(&mut store).await?);
        Ok(Instance {
            store,
            proxy,
            view: |guest| guest.http(),
            expiration: Expiration {
                limits: self.limits,
                timer: Box::pin(sleep(NEVER)),
                stopping: Box::pin(self.lifetime.stopping.clone().cancelled_owned()),
                stopped: Box::pin(self.lifetime.stopped.clone().cancelled_owned()),
            },
            state: Worker {
                component: self.component.clone(),
                limits: self.limits,
                stopped: self.lifetime.stopped.clone(),
                _alive: alive,
            },
        })
    }
}

/// When one instance has to go.
pub(crate) struct Expiration {
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        status: WorkerStatus,
        since: Instant,
    ) -> Poll<()> {
        let stopped = self.stopped.as_mut().poll(context).is_ready();
        let stopping = self.stopping.as_mut().poll(context).is_ready();
        let idle = matches!(status, WorkerStatus::Idle);
        if stopped || (stopping && idle) {
            return Poll::Ready(());
        }
        let limit = if idle { Some(self.limits.idle_timeout) } else { self.limits.request_timeout };
        let Some(deadline) = limit.and_then(|limit| since.checked_add(limit)) else {
            return Poll::Pending;
        };
        if self.timer.deadline() != deadline.into() {
            self.timer.as_mut().reset(deadline.into());
        }
        self.timer.as_mut().poll(context)
    }
}

/// What one instance still takes.
pub(crate) struct Worker {
    component: Arc<ComponentContext>,
    limits: Limits,
    stopped: CancellationToken,
    _alive: TaskTrackerToken,
}

impl WorkerState for Worker {
    type StoreData = Guest;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.limits.reuse {
            ShouldAccept::Never
        } else if concurrent >= self.limits.concurrent {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, Guest>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(sleep(self.limits.request_timeout.unwrap_or(NEVER)))
    }

    fn drop(&self, store: Store<Guest>, result: Result<(), wasmtime::Error>) {
        // The guest's last words come before what is said about its end.
        drop(store);
        if let Err(error) = result
            && !self.stopped.is_cancelled()
        {
            let text = format!("an instance of {} failed: {error:#}", self.component.id);
            self.component.logs.line(text.as_bytes());
        }
    }
}

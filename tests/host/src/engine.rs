//! The one wasmtime engine of this process, and what guests may import.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::guest::Guest;
use crate::wit;

/// How often a guest that only computes lets other work of its thread run.
const EPOCH: Duration = Duration::from_millis(10);

/// Instances that may live at once in this process, over all applications. Memory is reserved for each as addresses
/// only.
const MOST_INSTANCES: u32 = 1000;

/// The engine that all applications of this process share. The first call makes it.
pub(crate) fn engine() -> Result<&'static Engine> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE
        .get_or_init(|| new_engine().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("can't start wasmtime: {error}"))
}

fn new_engine() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MOST_INSTANCES)
        .total_core_instances(4 * MOST_INSTANCES)
        .total_memories(MOST_INSTANCES)
        .total_tables(2 * MOST_INSTANCES)
        .total_stacks(2 * MOST_INSTANCES)
        .table_elements(100_000)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(512 << 10);
    let mut config = Config::new();
    config
        .wasm_component_model_async(true)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        // Where no folder for it can be found, every start compiles.
        .cache(Cache::new(CacheConfig::new()).ok());
    let engine = Engine::new(&config)?;
    let ticking = engine.clone();
    thread::Builder::new().name("epochs".into()).spawn(move || {
        loop {
            thread::sleep(EPOCH);
            ticking.increment_epoch();
        }
    })?;
    Ok(engine)
}

/// All that a component may import: WASI 0.2 without HTTP, WASI 0.3, and three of Spin's interfaces.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    wit::spin::postgres::postgres::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    wit::spin::key_value::key_value::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    wit::spin::variables::variables::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

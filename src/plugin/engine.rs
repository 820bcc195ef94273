//! The one wasmtime engine: its settings, its clock, its compiled-code cache.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::Path, thread, time::Duration};

use wasmtime::{
    Cache, CacheConfig, Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
};

/// One epoch. A guest is asked whether it may go on once in each.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Component instances at once over all plugins, old versions included.
const INSTANCES: u32 = 1_000;
/// A component made of one module has three core instances: itself and two adapters.
const CORE_INSTANCES: u32 = 6 * INSTANCES;
const WASM_STACK: usize = 512 * 1024;
const ASYNC_STACK: usize = 2 * 1024 * 1024;
/// Memory of a slot that is cleared, not unmapped, when the slot is reused.
const KEEP_RESIDENT: usize = 256 * 1024;

/// An engine whose epochs advance until its last user drops it.
/// Compiled code is kept under `cache_dir` if one is given.
pub(super) fn build(cache_dir: Option<&Path>) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Component-model async triples the cost of a call and no hook uses it.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    if let Some(directory) = cache_dir {
        config.cache(Some(cache(directory)?));
    }
    let engine = Engine::new(&config)?;
    start_clock(&engine)?;
    Ok(engine)
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(CORE_INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(2 * INSTANCES)
        .total_stacks(INSTANCES)
        .max_memories_per_component(8)
        .max_tables_per_component(16)
        .max_core_instances_per_component(32)
        .pagemap_scan(Enabled::Auto);
    pool.linear_memory_keep_resident(KEEP_RESIDENT);
    pool
}

fn cache(directory: &Path) -> wasmtime::Result<Cache> {
    // The cache insists on an absolute path.
    let directory = std::path::absolute(directory)?;
    // Compiled code is trusted: nobody else may put any there.
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let mut config = CacheConfig::new();
    config.with_directory(directory);
    Cache::new(config)
}

fn start_clock(engine: &Engine) -> wasmtime::Result<()> {
    let weak = engine.weak();
    thread::Builder::new().name("plugin-clock".to_owned()).spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
}

//! What the gateway offers to plugins: one file per WIT interface. Each call
//! checks the grant again; that a component was let in is not enough.

mod control;
mod key_value;
mod ledger;
mod log;
mod secrets;

use std::{
    sync::{Arc, Weak, atomic::AtomicUsize},
    time::Duration,
};

use tokio::time::timeout;
use wasmtime::{
    Engine,
    component::{HasSelf, Linker},
};
use wasmtime_wasi_http::{WasiHttp, WasiHttpView, p2::bindings as wasi_http};

use crate::state::StoreError;

use super::{
    HostServices, Plugins,
    bindings::{World, imports},
    instance::InstanceState,
};

/// The longest that a host call waits for the store.
const STORE_WAIT: Duration = Duration::from_secs(4);

/// What all instances of all plugins share.
pub(super) struct Host {
    pub(super) services: HostServices,
    pub(super) plugins: Weak<Plugins>,
    /// Living instances of all versions.
    pub(super) instances: Arc<AtomicUsize>,
}

/// Everything that any plugin may import. What a certain one may import is
/// decided before it is linked.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<InstanceState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    let options = wasi_http::LinkOptions::default();
    wasi_http::http::types::add_to_linker::<_, WasiHttp>(
        &mut linker,
        &(&options).into(),
        <InstanceState as WasiHttpView>::http,
    )?;
    World::add_to_linker::<_, HasSelf<InstanceState>>(&mut linker, |state| state)?;
    Ok(linker)
}

impl imports::types::Host for InstanceState {}

impl imports::llm_types::Host for InstanceState {}

/// A store call that never keeps a guest waiting for long.
async fn bounded<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(STORE_WAIT, call).await.unwrap_or(Err(StoreError::TimedOut))
}

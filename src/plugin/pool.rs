//! The bounded set of instances of one version, one call at a time in each.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    PluginFault,
    instance::{Blueprint, Identity, Instance, StartError},
};

/// How long a call waits for an instance before it fails.
const WAIT: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    blueprint: Blueprint,
    permits: Semaphore,
    /// Last in, first out: the warmest instance is used next.
    idle: Mutex<Vec<Instance>>,
}

/// An instance for one call. Only `give_back` returns it to the pool: a call
/// that trapped, was interrupted, or whose future was dropped half way leaves
/// an instance that must not be entered again, and dropping the lease drops it.
pub(super) struct Lease<'a> {
    pub(super) instance: Instance,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(blueprint: Blueprint, first: Instance) -> Self {
        let permits = Semaphore::new(blueprint.limits.instances.clamp(1, Semaphore::MAX_PERMITS));
        Self { blueprint, permits, idle: Mutex::new(vec![first]) }
    }

    pub(super) fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    pub(super) async fn lease(&self) -> Result<Lease<'_>, PluginFault> {
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => match timeout(WAIT, self.permits.acquire()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(PluginFault::Exhausted),
            },
        };
        let idle = self.idle.lock().pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => self.start().await?,
        };
        instance.store.data_mut().memory.refused = false;
        Ok(Lease { instance, pool: self, _permit: permit })
    }

    async fn start(&self) -> Result<Instance, PluginFault> {
        match self.blueprint.start().await {
            Ok((instance, _)) => Ok(instance),
            Err(StartError::OutOfMemory) => Err(PluginFault::OutOfMemory),
            Err(StartError::TimedOut) => Err(PluginFault::TimedOut),
            Err(StartError::Refused(_)) => {
                Err(PluginFault::Invalid("a later instance refused the configuration"))
            }
            Err(StartError::Engine(error)) => {
                let Identity { name, log_limit, .. } = &*self.blueprint.identity;
                if log_limit.allows(Instant::now()) {
                    tracing::warn!(plugin = %name, error = %error.root_cause(), "a new instance cannot start");
                }
                Err(PluginFault::of(&error, false))
            }
        }
    }
}

impl Lease<'_> {
    /// After a call that returned.
    pub(super) fn give_back(mut self) {
        self.instance.calls += 1;
        if self.instance.calls < self.pool.blueprint.limits.calls_per_instance {
            self.pool.idle.lock().push(self.instance);
        }
    }
}

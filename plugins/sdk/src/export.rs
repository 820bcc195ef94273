//! The export macro: glue between a plugin type and the generated bindings.

use std::sync::OnceLock;

use crate::{Plugin, Subscription};

/// Where the instance's plugin value lives between calls.
#[doc(hidden)]
pub struct Slot<P>(OnceLock<P>);

impl<P: Plugin> Slot<P> {
    #[expect(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    pub fn configure(&self, config: &str) -> Result<Subscription, String> {
        let plugin = P::configure(config)?;
        let subscription = plugin.subscription();
        self.0.set(plugin).map_err(|_| "configured twice".to_owned())?;
        Ok(subscription)
    }

    /// Invariant: the host calls `configure` before any hook.
    pub fn plugin(&self) -> &P {
        self.0.get().expect("a hook was called before configure")
    }
}

/// Exports a plugin type with the hooks that it implements, of `http_filter`,
/// `admission`, `planner`, `credentials`, `settlement` and `endpoint`:
/// `tollgate_sdk::export!(Metering: admission, settlement, endpoint);`
///
/// Once per crate. Does nothing when not compiled to WebAssembly.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($hook:ident),+ $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            static PLUGIN: $crate::Slot<$plugin> = $crate::Slot::new();
            struct Exports;
            $crate::__export_hook!(lifecycle);
            $($crate::__export_hook!($hook);)+
        };
        // Keeps the plugin in use for the compiler where nothing is exported.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(&str) -> Result<$plugin, String> = <$plugin as $crate::Plugin>::configure;
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    (lifecycle) => {
        impl $crate::wit::lifecycle::exports::tollgate::plugin::lifecycle::Guest for Exports {
            fn configure(config: String) -> Result<$crate::Subscription, String> {
                PLUGIN.configure(&config)
            }
        }
        $crate::wit::lifecycle::export_lifecycle!(Exports with_types_in $crate::wit::lifecycle);
    };
    (http_filter) => {
        impl $crate::wit::http_filter::exports::tollgate::plugin::http_filter::Guest for Exports {
            fn on_request(request: $crate::RequestHead) -> $crate::RequestVerdict {
                $crate::HttpFilter::on_request(PLUGIN.plugin(), request)
            }
            fn on_response(response: $crate::ResponseHead) -> Vec<$crate::Edit> {
                $crate::HttpFilter::on_response(PLUGIN.plugin(), response)
            }
            fn on_end(summary: $crate::EndSummary) {
                $crate::HttpFilter::on_end(PLUGIN.plugin(), summary);
            }
        }
        $crate::wit::http_filter::export_http_filter!(Exports with_types_in $crate::wit::http_filter);
    };
    (admission) => {
        impl $crate::wit::admission::exports::tollgate::plugin::admission::Guest for Exports {
            fn admit(request: $crate::LlmRequest) -> $crate::admission::AdmissionVerdict {
                $crate::Admission::admit(PLUGIN.plugin(), request)
            }
        }
        $crate::wit::admission::export_admission!(Exports with_types_in $crate::wit::admission);
    };
    (planner) => {
        impl $crate::wit::planner::exports::tollgate::plugin::planner::Guest for Exports {
            fn plan(request: $crate::LlmRequest) -> Result<Vec<u32>, $crate::Refusal> {
                $crate::Planner::plan(PLUGIN.plugin(), request)
            }
            fn after_failure(
                request: $crate::LlmRequest,
                failed: Vec<$crate::planner::FailedAttempt>,
            ) -> $crate::planner::NextStep {
                $crate::Planner::after_failure(PLUGIN.plugin(), request, failed)
            }
        }
        $crate::wit::planner::export_planner!(Exports with_types_in $crate::wit::planner);
    };
    (credentials) => {
        impl $crate::wit::credentials::exports::tollgate::plugin::credentials::Guest for Exports {
            fn credential_for(
                attempt: $crate::credentials::Attempt,
            ) -> Result<$crate::credentials::Credential, $crate::Refusal> {
                $crate::Credentials::credential_for(PLUGIN.plugin(), attempt)
            }
        }
        $crate::wit::credentials::export_credentials!(Exports with_types_in $crate::wit::credentials);
    };
    (settlement) => {
        impl $crate::wit::settlement::exports::tollgate::plugin::settlement::Guest for Exports {
            fn settle(
                request: $crate::LlmRequest,
                outcome: $crate::settlement::Outcome,
            ) -> $crate::settlement::Booking {
                $crate::Settlement::settle(PLUGIN.plugin(), request, outcome)
            }
        }
        $crate::wit::settlement::export_settlement!(Exports with_types_in $crate::wit::settlement);
    };
    (endpoint) => {
        impl $crate::wit::endpoint::exports::wasi::http::incoming_handler::Guest for Exports {
            fn handle(
                request: $crate::wit::endpoint::wasi::http::types::IncomingRequest,
                response_out: $crate::wit::endpoint::wasi::http::types::ResponseOutparam,
            ) {
                $crate::http::wasi::handle(request, response_out, |request| {
                    $crate::Endpoint::serve(PLUGIN.plugin(), request)
                });
            }
        }
        $crate::wit::endpoint::export_endpoint!(Exports with_types_in $crate::wit::endpoint);
    };
}

//! Metering: sets money aside before an LLM request, books what it cost after
//! it, and serves `/credits` and `/usage`.

use tollgate_sdk::{
    Admission, Endpoint, LlmRequest, Plugin, Settlement,
    admission::AdmissionVerdict,
    host::Gateway,
    http::{Request, Response},
    settlement::{Booking, Outcome},
};

mod admission;
mod api;
mod config;
mod money;
mod month;
mod settlement;

use config::Config;

struct Metering(Config);

impl Plugin for Metering {
    fn configure(config: &str) -> Result<Self, String> {
        Config::parse(config).map(Self)
    }
}

impl Admission for Metering {
    fn admit(&self, request: LlmRequest) -> AdmissionVerdict {
        admission::admit(&self.0, &request, &Gateway)
    }
}

impl Settlement for Metering {
    fn settle(&self, request: LlmRequest, outcome: Outcome) -> Booking {
        settlement::settle(&self.0, request, outcome)
    }
}

impl Endpoint for Metering {
    fn serve(&self, request: Request) -> Response {
        api::serve(request, &Gateway)
    }
}

tollgate_sdk::export!(Metering: admission, settlement, endpoint);

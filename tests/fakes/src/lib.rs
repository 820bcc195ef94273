//! Scripted, honest stand-ins for what a gateway talks to: HTTP origins, LLM
//! providers, a certificate authority and an ACME server. Everything listens on port 0 of the
//! loopback address and stops when its value is dropped.

pub mod acme;
pub mod answer;
mod anthropic;
pub mod certificates;
mod openai;
pub mod origin;
pub mod provider;
mod serve;

pub use acme::{AcmeServer, Placed, Refusal};
pub use answer::Answer;
pub use certificates::Authority;
pub use origin::Origin;
pub use provider::{Provider, Seen};
pub use serve::refusing_address;

//! `control`: the gateway itself, for admin plugins.

use serde::Serialize;

use crate::{
    config::plugin::ControlVerb,
    plugin::{
        LoadError,
        bindings::imports::control::{Error, Host},
        instance::InstanceState,
    },
};

impl InstanceState {
    fn may(&self, verb: ControlVerb) -> Result<(), Error> {
        if self.identity.grants.control.contains(&verb) { Ok(()) } else { Err(Error::Denied) }
    }
}

impl Host for InstanceState {
    fn routes(&mut self) -> Result<String, Error> {
        self.may(ControlVerb::Read)?;
        Ok(self.host.services.inspect.routes())
    }

    fn services(&mut self) -> Result<String, Error> {
        self.may(ControlVerb::Read)?;
        Ok(self.host.services.inspect.services())
    }

    fn plugins(&mut self) -> Result<String, Error> {
        self.may(ControlVerb::Read)?;
        let plugins = self.host.plugins.upgrade().ok_or_else(shutting_down)?;
        json(&plugins.list())
    }

    async fn load_plugin(&mut self, name: String, component: Vec<u8>) -> Result<String, Error> {
        self.may(ControlVerb::LoadPlugin)?;
        let plugins = self.host.plugins.upgrade().ok_or_else(shutting_down)?;
        let version = plugins.load(&name, component.into()).await?;
        json(&version)
    }
}

fn shutting_down() -> Error {
    Error::Unavailable("the gateway is shutting down".to_owned())
}

fn json(document: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(document).map_err(|error| Error::Unavailable(error.to_string()))
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::UnknownPlugin(_) => Self::NotFound,
            LoadError::Engine(_) => Self::Unavailable(error.to_string()),
            _ => Self::Invalid(error.to_string()),
        }
    }
}

//! `spin:variables`: a component reads its own variables.

use wasmtime::component::{Accessor, HasSelf};

use crate::guest::Guest;
use crate::identifiers::check_lower_snake;
use crate::wit::spin::variables::variables::{Error, Host, HostWithStore};

impl Host for Guest {}

impl<T: Send> HostWithStore<T> for HasSelf<Guest> {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> wasmtime::Result<Result<String, Error>> {
        if let Err(error) = check_lower_snake(&name) {
            return Ok(Err(Error::InvalidName(error.to_string())));
        }
        Ok(accessor.with(|mut access| {
            let component = &access.get().component;
            component
                .variables
                .get(&name)
                .cloned()
                .ok_or_else(|| Error::Undefined(format!("no variable for {:?}.{name:?}", component.id)))
        }))
    }
}

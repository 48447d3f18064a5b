//! `spin:postgres`: what a component's database calls do, at the cost that they have in Spin.

mod errors;
mod parameters;
mod pools;
mod results;
mod types;

use std::sync::Arc;

use wasmtime::component::{Accessor, FutureReader, HasSelf, Resource, StreamReader};

use crate::guest::Guest;
use crate::wit::spin::postgres::postgres::{
    Column, Error, Host, HostConnection, HostConnectionBuilder, HostConnectionBuilderWithStore,
    HostConnectionWithStore, ParameterValue, Row, RowSet,
};

use pools::PooledClient;
pub(crate) use pools::Pools;

/// A connection that a component has open. It goes back to its pool when the last use of it is over.
pub struct OpenConnection(Arc<PooledClient>);

/// An address for which no connection is open yet.
pub struct ConnectionSettings {
    address: String,
}

impl Host for Guest {}

impl HostConnectionBuilder for Guest {
    fn new(&mut self, address: String) -> wasmtime::Result<Resource<ConnectionSettings>> {
        Ok(self.table.push(ConnectionSettings { address })?)
    }

    fn set_ca_root(
        &mut self,
        _: Resource<ConnectionSettings>,
        _: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(Err(Error::Other(
            "this host has no TLS for PostgreSQL, so a root certificate is of no use".into(),
        )))
    }

    async fn build(
        &mut self,
        settings: Resource<ConnectionSettings>,
    ) -> wasmtime::Result<Result<Resource<OpenConnection>, Error>> {
        let address = self.table.get(&settings)?.address.clone();
        self.open(address).await
    }

    async fn drop(&mut self, settings: Resource<ConnectionSettings>) -> wasmtime::Result<()> {
        self.table.delete(settings)?;
        Ok(())
    }
}

impl<T: Send> HostConnectionBuilderWithStore<T> for HasSelf<Guest> {
    async fn build_async(
        accessor: &Accessor<T, Self>,
        settings: Resource<ConnectionSettings>,
    ) -> wasmtime::Result<Result<Resource<OpenConnection>, Error>> {
        let address =
            accessor.with(|mut access| access.get().table.get(&settings).map(|it| it.address.clone()))?;
        Self::open_async(accessor, address).await
    }
}

/// The plain functions hold their whole instance until they are done, as in Spin: nothing else runs in it meanwhile.
impl HostConnection for Guest {
    async fn open(&mut self, address: String) -> wasmtime::Result<Result<Resource<OpenConnection>, Error>> {
        match self.component.pools.get(&self.component.allowed_hosts, &address).await {
            Ok(client) => Ok(Ok(self.table.push(OpenConnection(Arc::new(client)))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn query(
        &mut self,
        connection: Resource<OpenConnection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> wasmtime::Result<Result<RowSet, Error>> {
        let client = self.table.get(&connection)?.0.clone();
        Ok(results::query(&client, &statement, &parameters).await)
    }

    async fn execute(
        &mut self,
        connection: Resource<OpenConnection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let client = self.table.get(&connection)?.0.clone();
        Ok(results::execute(&client, &statement, &parameters).await)
    }

    async fn drop(&mut self, connection: Resource<OpenConnection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl<T: Send> HostConnectionWithStore<T> for HasSelf<Guest> {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> wasmtime::Result<Result<Resource<OpenConnection>, Error>> {
        let component = accessor.with(|mut access| access.get().component.clone());
        match component.pools.get(&component.allowed_hosts, &address).await {
            Ok(client) => accessor
                .with(|mut access| Ok(Ok(access.get().table.push(OpenConnection(Arc::new(client)))?))),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn query_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<OpenConnection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> wasmtime::Result<Result<(Vec<Column>, StreamReader<Row>, FutureReader<Result<(), Error>>), Error>>
    {
        let client = opened(accessor, &connection)?;
        let results = match results::stream(&client, &statement, &parameters).await {
            Ok(results) => results,
            Err(error) => return Ok(Err(error)),
        };
        accessor.with(|mut access| {
            let rows = StreamReader::new(&mut access, results.rows)?;
            let outcome = FutureReader::new(&mut access, results.outcome)?;
            Ok(Ok((results.columns, rows, outcome)))
        })
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<OpenConnection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let client = opened(accessor, &connection)?;
        Ok(results::execute(&client, &statement, &parameters).await)
    }
}

fn opened<T>(
    accessor: &Accessor<T, HasSelf<Guest>>,
    connection: &Resource<OpenConnection>,
) -> wasmtime::Result<Arc<PooledClient>> {
    Ok(accessor.with(|mut access| access.get().table.get(connection).map(|open| open.0.clone()))?)
}

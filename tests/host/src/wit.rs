//! The bindings of Spin's interfaces, generated from `wit/`.

#![allow(missing_docs, reason = "generated from WIT files, which have the documentation")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "llm-jobs:host/imports",
    imports: {
        "spin:postgres/postgres.[constructor]connection-builder": trappable,
        "spin:postgres/postgres.[method]connection-builder.set-ca-root": trappable,
        "spin:postgres/postgres": async | trappable,
        "spin:key-value/key-value": trappable,
        "spin:variables/variables": trappable,
        default: async,
    },
    with: {
        "spin:postgres/postgres.connection": crate::postgres::OpenConnection,
        "spin:postgres/postgres.connection-builder": crate::postgres::ConnectionSettings,
        "spin:key-value/key-value.store": crate::key_value::OpenStore,
    },
});

//! What the SQL functions promise, on a real PostgreSQL.

mod foundations;

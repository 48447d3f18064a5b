//! Negative tests: what attackers try, class by class. `docs/security.md` says for each class what guards against it
//! and which of these tests shows that.

#[path = "../matrix/recipes.rs"]
#[allow(dead_code, reason = "made for the matrix, which uses more of it")]
mod recipes;
#[path = "../matrix/world.rs"]
#[allow(dead_code, reason = "made for the matrix, which uses more of it")]
mod world;

mod addresses;
mod bodies;
mod caches;
mod canaries;
mod database_role;
mod documentation;
mod hostile;
mod injection;
mod keys;
mod logs;
mod paths;
mod recorder;
mod steering;
mod tenants;
mod values;
mod wire;

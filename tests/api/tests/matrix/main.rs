//! Every route, from the application's own list: who may call it, what repeating its request does, and which SQL
//! statements it takes. A route that is new here needs a recipe in `recipes.rs`, and nothing else.

mod access;
mod recipes;
mod repeats;
mod statements;
mod world;

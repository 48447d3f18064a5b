//! The black-box tests: what the API promises, over HTTP, against the real components. One file for each thing that it promises.

mod exactness;

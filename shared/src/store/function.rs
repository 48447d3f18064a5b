//! Calls of the functions of `migrations/`.

use super::{
    database::query,
    parameters::{Argument, Parameters},
};
use crate::error::Result;
use serde::de::DeserializeOwned;

/// A call of a function, in named notation: a parameter that was renamed, or is given to a function that has none of that name, is an
/// error and no other value.
pub struct Function {
    name: &'static str,
    arguments: Vec<Argument>,
    repeatable: bool,
}

/// A call of a function of `migrations/`: `function!(create_job(p_actor: caller.actor(), p_job_type: new.job_type))`. What a parameter
/// takes is said in [`store::parameters`](crate::store::parameters), so that no id can stand in another's place.
#[macro_export]
macro_rules! function {
    ($name:ident($($parameter:ident: $value:expr),* $(,)?)) => {
        $crate::store::Function::new(
            stringify!($name),
            vec![$($crate::store::parameters::$parameter($value)),*],
        )
    };
}

impl Function {
    /// See [`function!`](crate::function!).
    pub fn new(name: &'static str, arguments: Vec<Argument>) -> Self {
        Self { name, arguments, repeatable: false }
    }

    /// The same where a second time does no harm, since it finds what the first has done: then a lost answer is no reason to give up.
    pub fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// Runs it by itself.
    pub async fn run<T: DeserializeOwned>(self) -> Result<T> {
        let repeatable = self.repeatable;
        let mut parameters = Parameters::default();
        let call = self.expression(&mut parameters);
        query(format!("SELECT {call}::text AS answer"), parameters, repeatable).await?.read()
    }

    /// The call as it stands in a statement, to whose parameters it adds its own.
    pub(super) fn expression(self, parameters: &mut Parameters) -> String {
        let arguments: Vec<String> =
            self.arguments.into_iter().map(|argument| parameters.push(argument)).collect();
        format!("{}({})", self.name, arguments.join(", "))
    }
}

//! Calls of the functions of `migrations/`.

use super::{
    database::query,
    parameters::{Argument, Parameters},
};
use crate::error::Result;
use serde::de::DeserializeOwned;

/// A call of a function, with its arguments by name: an argument that the function does not have is an error, and never
/// becomes the value of another parameter.
pub struct Function {
    name: &'static str,
    arguments: Vec<Argument>,
    repeatable: bool,
}

/// Calls a function of `migrations/`. The types of its parameters are in
/// [`store::parameters`](crate::store::parameters):
///
/// ```
/// use shared::{function, values::{CallId, JobId}};
///
/// let (job, call) = (JobId::new_v7(), CallId::new_v7());
/// function!(settle_call(p_job_id: job, p_call_id: call));
/// ```
///
/// An id can't be passed in place of another:
///
/// ```compile_fail
/// use shared::{function, values::{CallId, JobId}};
///
/// let (job, call) = (JobId::new_v7(), CallId::new_v7());
/// function!(settle_call(p_job_id: call, p_call_id: job));
/// ```
///
/// and a parameter that no function has does not compile:
///
/// ```compile_fail
/// use shared::{function, values::JobId};
///
/// function!(settle_call(p_job: JobId::new_v7()));
/// ```
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

    /// The same call, marked as one that does no harm when it is sent again, since it finds what the first has done. It
    /// is then sent again if its answer is lost.
    pub fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// Runs the function in a statement of its own.
    pub async fn run<T: DeserializeOwned>(self) -> Result<T> {
        let repeatable = self.repeatable;
        let mut parameters = Parameters::default();
        let call = self.expression(&mut parameters);
        query(format!("SELECT {call}::text AS answer"), parameters, repeatable).await?.read()
    }

    /// The call as an expression for a statement. Adds its values to the statement's parameters.
    pub(super) fn expression(self, parameters: &mut Parameters) -> String {
        let arguments: Vec<String> =
            self.arguments.into_iter().map(|argument| parameters.push(argument)).collect();
        format!("{}({})", self.name, arguments.join(", "))
    }
}

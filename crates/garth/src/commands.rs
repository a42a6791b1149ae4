//! One file per verb: its flags and what it does.

use crate::context::Context;
use crate::failure::Result;
use crate::report;

pub mod attach;
pub mod cluster;
pub mod completion;
pub mod cp;
pub mod create;
pub mod doctor;
pub mod exec;
pub mod image;
pub mod inspect;
pub mod key;
pub mod kill;
pub mod logs;
pub mod ls;
pub mod operator;
pub mod pause;
pub mod ps;
pub mod rm;
pub mod run;
pub mod serve;
pub mod set;
pub mod setup;
pub mod shell;
pub mod start;
pub mod stop;
pub mod verify;
pub mod wait;

/// Does one thing for each name, reports each failure, and ends with the code of the first.
async fn for_each<N>(context: &Context, names: &[N], act: impl AsyncFn(&N) -> Result<()>) -> u8 {
    let mut code = 0;
    for name in names {
        if let Err(failure) = act(name).await {
            report(&failure, context.format);
            code = if code == 0 { failure.exit.code() } else { code };
        }
    }
    code
}

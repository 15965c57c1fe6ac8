//! `schedules.json`: learning rates, weight decay and momentum at steps of training runs.

use serde_json::Value;
use webjepa::train::schedule::{
    cosine, linear, linear_ema, steps_per_epoch, warmup_cosine, warmup_stable_decay,
};

use crate::folder::Folder;
use crate::report::Report;
use crate::tolerance::Quantity;

pub fn values(folder: &Folder, file: &str, report: &mut Report) -> Result<(), String> {
    let expected = folder.json(file)?;
    for case in folder.entry(file)?["cases"].as_array().ok_or("no cases")? {
        let key = case["key"].as_str().ok_or("a case has no key")?;
        let value = schedule(case).map_err(|why| format!("{key}: {why}"))?;
        let Some(steps) = expected[key].as_object() else {
            report.value(key, value(0), &expected[key], Quantity::Exact)?;
            continue;
        };
        for (step, expected) in steps {
            let number = step.parse().map_err(|_| format!("{key}: step {step}"))?;
            let name = format!("{key} at {step}");
            report.value(&name, value(number), expected, Quantity::Schedule)?;
        }
    }
    Ok(())
}

/// The value of a case at a step; at any step, where it has but one.
fn schedule(case: &Value) -> Result<Box<dyn Fn(u64) -> f64>, String> {
    let number = |key: &str| case[key].as_f64().ok_or(format!("no {key}"));
    let count = |key: &str| case[key].as_u64().ok_or(format!("no {key}"));
    let rates = || Ok::<_, String>([number("start_lr")?, number("ref_lr")?, number("final_lr")?]);
    Ok(match case["kind"].as_str() {
        Some("warmup_cosine_lr") => {
            let (rates, warmup, last) = (rates()?, count("warmup_steps")?, count("T_max")?);
            Box::new(move |step| warmup_cosine(step, rates, warmup, last))
        }
        Some("warmup_stable_decay_lr") => {
            let (rates, warmup) = (rates()?, count("warmup_steps")?);
            let (anneal, last) = (count("anneal_steps")?, count("T_max")?);
            Box::new(move |step| warmup_stable_decay(step, rates, warmup, anneal, last))
        }
        Some("linear_decay_lr") => {
            let (ends, last) = ([number("ref_lr")?, number("final_lr")?], count("T_max")?);
            Box::new(move |step| linear(step, ends, last))
        }
        Some("cosine_wd") => {
            let (ends, last) = ([number("wd")?, number("final_wd")?], count("T_max")?);
            Box::new(move |step| cosine(step, ends, last))
        }
        Some("linear_ema") => {
            let ends = [number("m0")?, number("m1")?];
            let length = number("ipe")? * number("epochs")? * number("ipe_scale")?;
            Box::new(move |update| linear_ema(update, ends, length))
        }
        Some("iterations_per_epoch") => {
            let steps = steps_per_epoch(count("images")?, count("global_batch")?);
            Box::new(move |_| steps as f64)
        }
        kind => return Err(format!("unknown kind {kind:?}")),
    })
}

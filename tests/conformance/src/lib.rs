//! Checks the library against a folder of numbers produced by the published implementations.
//!
//! Everything about a folder is read from its `manifest.json`, its JSON files and its tensor shapes; the same checks run
//! natively, as wasm on the CPU, and as wasm on WebGPU.

mod expected;
mod folder;
mod gradients;
mod ijepa;
mod lewm;
mod masks;
mod objectives;
mod preprocess;
mod report;
mod schedules;
mod tolerance;
mod video;
#[cfg(target_family = "wasm")]
mod wasm;

pub use folder::Folder;
pub use report::{Check, Report, Verdict};
pub use tolerance::Arithmetic;

use webjepa::device::Backend;

/// Runs every check of `folder` on this build's backend. `only` keeps the fixture files whose path contains one of its
/// strings; none keeps all.
pub async fn run(folder: &Folder, only: &[String]) -> Report {
    let mut report = Report::new(match Backend::BUILT {
        Backend::Cpu => Arithmetic::Cpu,
        Backend::WebGpu => Arithmetic::WebGpu,
    });
    let files = match folder.fixture_files() {
        Ok(files) => files,
        Err(why) => {
            report.failed("manifest.json", "readable", &why);
            return report;
        }
    };
    let device = match Backend::BUILT.device().await {
        Ok(device) => device,
        Err(error) => {
            report.failed("manifest.json", "device", &error.to_string());
            return report;
        }
    };
    for file in files {
        if !only.is_empty() && !only.iter().any(|part| file.contains(part.as_str())) {
            continue;
        }
        report.file(&file);
        let result = match file.as_str() {
            "ijepa_tiny.json" => ijepa::tiny(folder, &file, &device, &mut report).await,
            "ijepa_tiny_interp48.json" => {
                ijepa::interpolated(folder, &file, &device, &mut report).await
            }
            "ijepa_ti16/expected.json" => ijepa::photo(folder, &file, &device, &mut report).await,
            "vjepa1_tiny.json" => video::vjepa1(folder, &file, &device, &mut report).await,
            "vjepa2_tiny.json" => video::vjepa2(folder, &file, &device, &mut report).await,
            "vjepa21_tiny.json" => video::vjepa21(folder, &file, &device, &mut report).await,
            "vjepa2_pan/expected.json" => video::pan(folder, &file, &device, &mut report).await,
            "lewm_tiny.json" => lewm::tiny(folder, &file, &device, &mut report).await,
            "cem_step.json" => lewm::cem(folder, &file, &mut report),
            "lejepa_loss.json" => objectives::lejepa(folder, &file, &mut report),
            "ijepa_masks.json" | "vjepa_masks.json" => masks::replayed(folder, &file, &mut report),
            "preprocess_ops.json" => {
                preprocess::operations(folder, &file, &device, &mut report).await
            }
            "schedules.json" => schedules::values(folder, &file, &mut report),
            "sigreg_vicreg.json" => objectives::sigreg_vicreg(folder, &file, &mut report),
            _ => {
                report.skipped("every value", "this system is not implemented");
                Ok(())
            }
        };
        if let Err(why) = result {
            report.failed(&file, "could be checked", &why);
        }
    }
    let wanted =
        |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
    if wanted("attention")
        && let Err(why) = gradients::masked_attention(&device, &mut report).await
    {
        report.failed("attention", "could be checked", &why);
    }
    if wanted("gradients") {
        for result in [
            gradients::finite_differences(&device, &mut report).await,
            gradients::halves(&device, &mut report).await,
        ] {
            if let Err(why) = result {
                report.failed("gradients", "could be checked", &why);
            }
        }
    }
    report
}

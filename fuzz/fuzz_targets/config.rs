//! The input is a configuration or the name of a preset. Every derived size of an accepted one can be computed, and it
//! reads as the same after it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use webjepa::{
    checkpoint::{parameters, predictor_parameters},
    config::ModelConfig,
};

fuzz_target!(|text: &str| {
    let readers = [
        ModelConfig::from_hf_json,
        ModelConfig::from_json,
        ModelConfig::from_any_json,
        ModelConfig::preset,
    ];
    for config in readers.iter().filter_map(|read| read(text).ok()) {
        assert_eq!(config.grid_for(config.image_size), Ok(config.grid()));
        assert_eq!(config.head_dim() * config.heads, config.hidden_size);
        let count = |parameters: Vec<webjepa::checkpoint::Parameter>| -> u64 {
            // BatchNorm's running statistics are read with the parameters, and are none.
            parameters
                .iter()
                .filter(|parameter| !parameter.name.contains(".running_"))
                .map(|parameter| parameter.shape.iter().product::<usize>() as u64)
                .sum()
        };
        assert_eq!(count(parameters(&config)), config.parameter_count());
        assert_eq!(
            count(predictor_parameters(&config)),
            config.predictor_parameter_count()
        );
        let written = serde_json::to_string(&config).expect("configurations can be written");
        assert_eq!(ModelConfig::from_json(&written).as_ref(), Ok(&config));
    }
});

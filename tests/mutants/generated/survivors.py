"""Mutants that no check kills because they are right, each with why."""

EQUIVALENT = {
    "training.at_least_float32.swapped-arguments.d4c8ec.1": "promote_types is symmetric",
    "training.accumulation_groups.dropped-statement.00f4c2.1": "its caller hands it a generator, its own iterator",
    "training.predict.moved-line.8ad5c0.1": "padded rows are computed and not used, nothing else",
    "training.row_loader.default.15cf1e.1": "its callers hand it the number of workers",
    "training.release.dropped-argument.6dde07.1": "of a version that is none, no words are promised",
    "model.SelfAttention.__init__.default.82f2b8.2": "the model hands it its own value",
    "safety.SafetyGate.__init__.default.19fb39.1": "no length of the burn-in is promised",
    "wikitext_schedule.cache_folder.constant.37d2e4.1": "the name of a folder is free",
    "model.constant.925f93.1": "how many masks are kept is free, as long as there is a bound",
    "model.SelfAttention.__init__.moved-line.c6440f.1": "neither of the two lines reads what the other sets, nor draws",
    "optimization.configure_optimizer.dropped-argument.ce569b.1": "no words of an error are promised",
    "safety.SafetyGate.reset.constant.15cf1e.1": "no length of the burn-in after a reset is promised",
    "training.train_loop.moved-line.8bd653.1": "an empty list is made before or after",
    "training.planned_updates.default.15cf1e.1": "its callers hand it the extra steps",
    "training.Shares.constant.8f151f.1": "slots save memory, and change nothing else",
    "training.build_parser.dropped-argument.c1a11d.1": "None is the default of an option without one",
    "wikitext_schedule.constant.996b23.1": "how many rows are encoded at a time is free",
}

module clickmill/bench/load/fixedrate

go 1.25
